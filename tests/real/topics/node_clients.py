"""Node's https, http2 and fetch."""

# Proves: HDR-1

import json
import os
import pathlib
import subprocess

from frame.echo import Echo
from frame.gateway import Gateway, token
from frame.process import PATIENCE
from frame.runner import Topic

CASES = pathlib.Path(__file__).with_suffix(".mjs")

ROUTES = """
[[upstream]]
name = "echo"
servers = ["{url}"]
[[route]]
name = "app"
path_prefix = "/"
upstream = "echo"
access = "authenticated"
"""


class NodeClients(Topic):
    programs = ("node",)

    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url)))

    def case(self, name):
        """Runs one case of node_clients.mjs; gives what it printed as JSON."""
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(self.gateway.certificate)}
        command = ["node", CASES, name, self.gateway.url, token("alice")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_agent_reuses_one_connection(self):
        self.assertEqual(self.case("agent"), {"statuses": [200] * 10, "ports": 1})

    def test_streamed_upload_over_https(self):
        self.assertEqual(self.case("upload"), {"status": 200, "same": True})

    def test_many_streams_on_one_session(self):
        self.assertEqual(self.case("session"), {"statuses": [200] * 50, "same": True, "users": ["alice"]})

    def test_refusal_over_http2_leaves_the_session_usable(self):
        self.assertEqual(self.case("refused"), {"statuses": [401, 200], "code": "credentials_missing"})

    def test_abandoned_stream_leaves_the_session_usable(self):
        self.assertEqual(self.case("abandoned"), {"status": 200})

    def test_fetch_with_a_streamed_body(self):
        self.assertEqual(self.case("fetch"), {"status": 200, "text": "one two three"})

    def test_fetch_sees_redirects_and_problems(self):
        expected = {"redirect": 302, "location": "/elsewhere?a=b", "problem": "credentials_missing"}
        self.assertEqual(self.case("answers"), expected)

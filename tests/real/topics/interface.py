"""The account routes keep to their own description: a generator of requests makes right and wrong ones from it."""

# Proves: AUTH-7

import json
import pathlib
import ssl
import subprocess
import sys
import urllib.request

import schemathesis  # it is run by its command; without the package the topic is a skip
from frame.gateway import PASSWORD, Gateway
from frame.runner import Topic

COMMAND = pathlib.Path(sys.executable).parent / "st"

# What must hold of every answer, whatever was sent.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)

# For one operation, beside those that cover each part of its schema.
EXAMPLES = 5
SECONDS_MAX = 60


# What may end the session that the rest needs: the generator finds real ids in answers.
ENDING = ("change_user", "delete_user", "end_session", "logout", "logout_all", "logout_user")

ROUTES = """
[[upstream]]
name = "none"
servers = ["http://127.0.0.1:1"]
[[route]]
name = "app"
path_prefix = "/app"
upstream = "none"
access = "authenticated"
"""


class Description(Topic):
    @classmethod
    def begin(cls):
        limits = 'login_limit = { per_ip = "1000/s", per_account = "1000/s" }\nregister_limit = { per_ip = "1000/s" }'
        accounts = f'registration = "invite"\n{limits}'
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES, {"root": ["admin"]}, accounts=accounts))
        cls.document = cls.folder / "openapi.json"
        with urllib.request.urlopen(f"{cls.gateway.url}/auth/openapi.json", context=cls.gateway.tls()) as answer:
            cls.document.write_bytes(answer.read())

    def token(self):
        body = json.dumps({"username": "root", "password": PASSWORD, "delivery": "body"}).encode()
        login = urllib.request.Request(f"{self.gateway.url}/auth/login", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(login, context=self.gateway.tls()) as answer:
            return json.load(answer)["access_token"]

    def keeps_to_it(self, *words):
        command = [COMMAND, "run", self.document, "--url", self.gateway.url, "--tls-verify", self.gateway.certificate]
        command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-color"]
        # More workers than one share what draws values, and now and then its recursion does not end.
        command += ["--max-examples", str(EXAMPLES), "--workers", "1", "--no-shrink"]
        command += ["--exclude-tag", "pages", "--suppress-health-check", "all", "--warnings", "off", *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS_MAX)
        self.assertEqual(done.returncode, 0, f"schemathesis {schemathesis.__version__}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}")
        return done.stdout

    def test_holds_for_an_administrator(self):
        bearer = f"Bearer {self.token()}"
        words = [word for name in ENDING for word in ("--exclude-operation-id", name)]
        self.keeps_to_it(*words, "--header", f"Authorization:{bearer}")
        # It was good to the last: what was sent got past the door.
        me = urllib.request.Request(f"{self.gateway.url}/auth/me", headers={"Authorization": bearer})
        with urllib.request.urlopen(me, context=self.gateway.tls()) as answer:
            self.assertEqual(answer.status, 200)

    def test_holds_for_an_administrator_who_ends_sessions(self):
        words = [word for name in ENDING for word in ("--include-operation-id", name)]
        self.keeps_to_it(*words, "--header", f"Authorization:Bearer {self.token()}")

    def test_holds_for_a_stranger(self):
        self.keeps_to_it()

"""Python's own client and httpx: kept connections, streamed bodies, many requests at once on one HTTP/2 connection."""

# Proves: HDR-1, CACHE-1

import asyncio
import hashlib
import http.client

import httpx

from frame.echo import TEXT, Echo, fields
from frame.gateway import PASSWORD, Gateway, bearer
from frame.process import PATIENCE, eventually
from frame.runner import Topic

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


class PythonClients(Topic):
    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        users = {"alice": ["clerk"], "bob": []}
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), users=users))
        cls.alice = {"Authorization": bearer("alice")}

    def connection(self):
        connection = http.client.HTTPSConnection("localhost", self.gateway.port, timeout=PATIENCE, context=self.gateway.tls())
        self.addCleanup(connection.close)
        return connection

    def client(self, **options):
        client = httpx.Client(base_url=self.gateway.url, verify=self.gateway.tls(), timeout=PATIENCE, **options)
        self.addCleanup(client.close)
        return client

    def test_standard_library_keeps_its_connection(self):
        connection = self.connection()
        ports = set()
        for number in range(20):
            connection.request("POST", f"/{number}", body=b"x" * number, headers=self.alice)
            response = connection.getresponse()
            self.assertIn(b'"body_bytes": %d' % number, response.read())
            ports.add(connection.sock.getsockname()[1])
        self.assertEqual(len(ports), 1)

    def test_standard_library_streams_chunks(self):
        connection = self.connection()
        parts = [b"one", b"two" * 5000, b"", b"three"]
        sent = b"".join(parts)
        connection.request("PUT", "/echo", body=iter(filter(None, parts)), headers=self.alice, encode_chunked=True)
        self.assertEqual(connection.getresponse().read(), sent)

    def test_refusal_keeps_the_connection_for_the_next_request(self):
        connection = self.connection()
        connection.request("GET", "/refused")
        refused = connection.getresponse()
        refused.read()
        before = connection.sock
        connection.request("GET", "/allowed", headers=self.alice)
        self.assertEqual((refused.status, connection.getresponse().status), (401, 200))
        self.assertIs(connection.sock, before)

    def test_httpx_over_both_versions(self):
        for http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
            with self.subTest(version):
                client = self.client(http1=not http2, http2=http2)
                answer = client.get("/text", headers=self.alice)
                self.assertEqual((answer.http_version, answer.status_code, answer.content), (version, 200, TEXT))
                answer = client.get("/gzip", headers=self.alice)
                self.assertEqual((answer.headers["content-encoding"], answer.content), ("gzip", TEXT))

    def test_httpx_streams_both_ways(self):
        block = bytes(range(256)) * 256
        for http2 in (False, True):
            with self.subTest(http2=http2):
                client = self.client(http1=not http2, http2=http2)
                digest = hashlib.sha256()
                with client.stream("POST", "/echo", content=(block for _ in range(64)), headers=self.alice) as answer:
                    for part in answer.iter_bytes():
                        digest.update(part)
                self.assertEqual(digest.hexdigest(), hashlib.sha256(block * 64).hexdigest())

    def test_concurrent_callers_on_one_connection_do_not_mix(self):
        answers = asyncio.run(self.many())
        self.assertEqual(len(answers), 200)
        for number, answer in enumerate(answers):
            self.assertEqual(answer.status_code, 200, answer.text)
            seen = answer.json()
            self.assertEqual(fields(seen, "x-forwarded-user"), [f"user-{number}"])
            self.assertEqual((seen["target"], seen["body_bytes"]), (f"/{number}", number * 100))

    async def many(self):
        """200 requests, each of another caller with another body, 50 at once."""
        turn = asyncio.Semaphore(50)
        one = httpx.Limits(max_connections=1)
        options = {"base_url": self.gateway.url, "verify": self.gateway.tls(), "timeout": PATIENCE, "limits": one}
        async with httpx.AsyncClient(http1=False, http2=True, **options) as client:

            async def ask(number):
                async with turn:
                    headers = {"Authorization": bearer(f"user-{number}")}
                    return await client.post(f"/{number}", content=b"x" * (number * 100), headers=headers)

            return await asyncio.gather(*(ask(number) for number in range(200)))

    def test_login_call_refresh_logout(self):
        client = self.client(http2=True)
        login = {"username": "alice", "password": PASSWORD, "delivery": "body"}
        wrong = client.post("/auth/login", json={**login, "password": "not the password of alice"})
        self.assertEqual((wrong.status_code, wrong.json()["code"]), (401, "invalid_credentials"))

        tokens = client.post("/auth/login", json=login).json()
        caller = {"Authorization": f"Bearer {tokens['access_token']}"}
        seen = client.get("/orders", headers=caller).json()
        self.assertEqual(fields(seen, "x-forwarded-user"), ["alice"])
        self.assertEqual(fields(seen, "x-forwarded-groups"), ["clerk"])

        renewed = client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
        caller = {"Authorization": f"Bearer {renewed['access_token']}"}
        self.assertEqual(client.get("/auth/me", headers=caller).json()["user"]["username"], "alice")

        self.assertEqual(client.post("/auth/logout", headers=caller).status_code, 204)
        after = client.get("/orders", headers=caller)
        self.assertEqual((after.status_code, after.json()["code"]), (401, "token_invalid"))

    def test_operator_ends_the_sessions_of_a_user(self):
        client = self.client()
        tokens = client.post("/auth/login", json={"username": "bob", "password": PASSWORD, "delivery": "body"}).json()
        caller = {"Authorization": f"Bearer {tokens['access_token']}"}
        self.assertEqual(client.get("/", headers=caller).status_code, 200)
        self.gateway.command("user", "logout", "bob")
        eventually("bob is out", lambda: client.get("/", headers=caller).status_code == 401)

"""What a refused client reads: a problem document with the code, the same over every version of HTTP."""

# Proves: MSG-8, URI-3, HDR-1

import json

from frame.curl import Curl
from frame.echo import Echo
from frame.gateway import Gateway, token
from frame.runner import Topic

ROUTES = """
[[upstream]]
name = "echo"
servers = ["{url}"]
[[upstream]]
name = "absent"
servers = ["http://127.0.0.1:1"]
[[route]]
name = "app"
path_prefix = "/app"
methods = ["GET", "POST"]
upstream = "echo"
access = "authenticated"
max_body = "64KiB"
[[route]]
name = "audit"
path_prefix = "/app/audit"
upstream = "echo"
access = "authenticated"
require = {{ roles = ["auditor"] }}
[[route]]
name = "scoped"
path_prefix = "/app/scoped"
upstream = "echo"
access = "authenticated"
require = {{ scopes = ["orders:read"] }}
[[route]]
name = "absent"
path_prefix = "/absent"
upstream = "absent"
access = "public"
"""

VERSIONS = ("--http1.1", "--http2")


class Problems(Topic):
    programs = ("curl",)

    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url)))
        cls.alice = token("alice")

    def refused(self, status, code, path, *words, **options):
        """Asks over each version; the answer must be this refusal, and the backend must not have heard of it."""
        for version in VERSIONS:
            with self.subTest(version):
                before = len(self.echo.seen)
                reply = Curl(self.gateway, version)(path, *words, **options)
                self.assertEqual(reply.status, status)
                self.assertEqual(reply.fields["content-type"], "application/problem+json")
                problem = json.loads(reply.body)
                self.assertEqual((problem["status"], problem["code"]), (status, code))
                self.assertEqual(problem["request_id"], reply.fields["x-request-id"])
                self.assertEqual(self.gateway.record(problem["request_id"])["code"], code)
                self.assertEqual(len(self.echo.seen), before)
        return reply

    def test_no_token(self):
        reply = self.refused(401, "credentials_missing", "/app")
        self.assertEqual(reply.fields["www-authenticate"], 'Bearer realm="portcullis"')

    def test_forged_token(self):
        reply = self.refused(401, "token_invalid", "/app", user_token=self.alice[:-4] + "AAAA")
        self.assertIn('error="invalid_token"', reply.fields["www-authenticate"])

    def test_expired_token(self):
        self.refused(401, "token_expired", "/app", user_token=token("alice", seconds=-120))

    def test_role_missing(self):
        self.refused(403, "role_missing", "/app/audit", user_token=self.alice)

    def test_scope_missing_names_the_scope(self):
        reply = self.refused(403, "scope_missing", "/app/scoped", user_token=self.alice)
        self.assertIn('scope="orders:read"', reply.fields["www-authenticate"])

    def test_no_route(self):
        self.refused(404, "route_not_found", "/elsewhere", user_token=self.alice)

    def test_wrong_method_names_the_right_ones(self):
        reply = self.refused(405, "method_not_allowed", "/app", "--request", "DELETE", user_token=self.alice)
        self.assertEqual(reply.fields["allow"], "GET, POST")

    def test_path_that_can_be_read_in_two_ways(self):
        for path in ("/app/../app/audit", "/app/%2e%2e/x", "/app%2faudit", "/app/a%00", "/app;x/audit", "/app/%252e"):
            self.refused(400, "ambiguous_path", path, user_token=self.alice)

    def test_announced_body_over_the_limit(self):
        self.refused(413, "body_too_large", "/app", "--data-binary", "@-", stdin=bytes(65537), user_token=self.alice)

    def test_long_uri(self):
        self.refused(414, "uri_too_long", "/app?" + "q" * 9000, user_token=self.alice)

    def test_many_fields(self):
        many = [word for number in range(120) for word in ("--header", f"X-{number}: 1")]
        for version in VERSIONS:  # over HTTP/1.1 it is the library that refuses, without a document
            self.assertEqual(Curl(self.gateway, version)("/app", *many, user_token=self.alice).status, 431)

    def test_backend_that_is_down(self):
        self.refused(502, "upstream_unreachable", "/absent")

    def test_head_is_refused_without_a_body(self):
        for version in VERSIONS:
            reply = Curl(self.gateway, version)("/app/audit", "--head")
            self.assertEqual((reply.status, reply.figures["size_download"]), (401, 0))


class RateLimited(Topic):
    """A gateway with a small budget for each client address."""

    programs = ("curl",)

    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), rate="3/1h"))

    def test_too_many_requests_tell_when_to_come_again(self):
        curl = Curl(self.gateway)
        replies = [curl("/app", user_token=token("alice")) for _ in range(5)]
        self.assertEqual([reply.status for reply in replies], [200, 200, 200, 429, 429])
        self.assertEqual(replies[-1].json()["code"], "rate_limited")
        self.assertGreater(int(replies[-1].fields["retry-after"]), 0)
        self.assertIn("ratelimit", replies[-1].fields)
        self.assertEqual(len(self.echo.seen), 3)

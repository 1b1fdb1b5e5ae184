"""curl over HTTP/1.1 and over HTTP/2: what clients do every day arrives, and comes back, as it is."""

# Proves: HDR-1, HDR-8, MSG-11, MSG-12, NET-5

import gzip
import hashlib
import re

from frame.curl import Curl, Failed
from frame.echo import ETAG, TEXT, Echo, basic, fields
from frame.gateway import Gateway, token
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
max_body = "64MiB"
[[route]]
name = "public"
path_prefix = "/public"
upstream = "echo"
access = "public"
"""

BODY = bytes(range(256)) * 20000


class Everyday:
    """The tests, for each version of HTTP."""

    programs = ("curl",)
    version = ()

    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url)))
        cls.curl = Curl(cls.gateway, *cls.version)
        cls.alice = token("alice", email="alice@example.com", roles=["clerk", "admin"])

    def ask(self, path, *words, **options):
        return self.curl(path, *words, user_token=self.alice, **options)

    def test_get_arrives_with_the_callers_name_and_without_the_token(self):
        reply = self.ask("/a/b?c=d&c=e", "--header", "X-Forwarded-User: mallory", "--header", "X_Forwarded_User: mallory")
        seen = reply.json()
        self.assertEqual((reply.status, seen["method"], seen["target"]), (200, "GET", "/a/b?c=d&c=e"))
        self.assertEqual(fields(seen, "x-forwarded-user"), ["alice"])
        self.assertEqual(fields(seen, "x-forwarded-groups"), ["clerk,admin"])
        self.assertEqual(fields(seen, "x-forwarded-email"), ["alice@example.com"])
        self.assertEqual(fields(seen, "authorization"), [])
        self.assertNotIn("mallory", reply.body.decode())

    def test_expected_version_is_spoken(self):
        self.assertEqual(self.ask("/").figures["http_version"], self.spoken)

    def test_own_credentials_of_the_backend_pass_on_public_routes(self):
        sent = basic("bob", "secret")
        seen = self.curl("/public/x", "--header", f"Authorization: {sent}").json()
        self.assertEqual(fields(seen, "authorization"), [sent])
        self.assertEqual(fields(seen, "x-forwarded-user"), [])

    def test_post_with_a_body(self):
        seen = self.ask("/form", "--data-binary", "@-", stdin=BODY).json()
        self.assertEqual((seen["method"], seen["body_bytes"]), ("POST", len(BODY)))
        self.assertEqual(seen["body_sha256"], hashlib.sha256(BODY).hexdigest())
        self.assertEqual(fields(seen, "content-length"), [str(len(BODY))])

    def test_upload_of_unknown_length(self):
        seen = self.ask("/upload", "--upload-file", "-", "--request", "PUT", stdin=BODY).json()
        self.assertEqual((seen["method"], seen["body_bytes"]), ("PUT", len(BODY)))
        self.assertEqual(seen["body_sha256"], hashlib.sha256(BODY).hexdigest())
        self.assertEqual((fields(seen, "content-length"), fields(seen, "transfer-encoding")), ([], ["chunked"]))

    def test_body_comes_back(self):
        reply = self.ask("/echo", "--data-binary", "@-", "--header", "Content-Type: text/x-odd", stdin=BODY)
        self.assertEqual((reply.body, reply.fields["content-type"]), (BODY, "text/x-odd"))

    def test_refused_request_is_never_asked_for_its_body(self):
        before = len(self.echo.seen)
        expect = ("--header", "Expect: 100-continue", "--expect100-timeout", "25")
        reply = self.curl("/upload", *expect, "--data-binary", "@-", stdin=BODY)
        self.assertEqual((reply.status, reply.figures["size_upload"]), (401, 0))
        self.assertEqual(len(self.echo.seen), before)

    def test_refused_upload_is_answered_though_nobody_reads_it(self):
        before = len(self.echo.seen)
        reply = self.curl("/upload", "--data-binary", "@-", stdin=BODY)
        self.assertEqual((reply.status, reply.json()["code"]), (401, "credentials_missing"))
        self.assertLess(reply.figures["size_upload"], len(BODY))
        self.assertEqual(len(self.echo.seen), before)

    def test_head_has_the_fields_and_no_body(self):
        reply = self.ask("/text", "--head")
        self.assertEqual((reply.status, reply.fields["content-length"]), (200, str(len(TEXT))))
        self.assertEqual(reply.figures["size_download"], 0)

    def test_range(self):
        reply = self.ask("/text", "--range", "5-14")
        self.assertEqual((reply.status, reply.body), (206, TEXT[5:15]))
        self.assertEqual(reply.fields["content-range"], f"bytes 5-14/{len(TEXT)}")

    def test_not_modified(self):
        reply = self.ask("/text", "--header", f"If-None-Match: {ETAG}")
        self.assertEqual((reply.status, reply.body, reply.fields["etag"]), (304, b"", ETAG))

    def test_redirects_are_the_clients_business(self):
        before = len(self.echo.seen)
        reply = self.ask("/redirect")
        self.assertEqual((reply.status, reply.fields["location"]), (302, "/elsewhere?a=b"))
        self.assertEqual(len(self.echo.seen), before + 1)

    def test_compressed_bodies_are_not_touched(self):
        raw = self.ask("/gzip", "--header", "Accept-Encoding: gzip")
        self.assertEqual((raw.fields["content-encoding"], raw.body), ("gzip", gzip.compress(TEXT, mtime=0)))
        self.assertEqual(self.ask("/gzip", "--compressed").body, TEXT)

    def test_no_content(self):
        reply = self.ask("/status/204", "--request", "DELETE")
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.assertNotIn("content-length", reply.fields)

    def test_errors_of_the_backend_pass_as_they_are(self):
        for status in (400, 404, 418, 500, 503):
            reply = self.ask(f"/status/{status}")
            self.assertEqual((reply.status, reply.fields["x-from"], reply.body), (status, "backend", b"as you asked\n"))

    def test_one_connection_carries_many_requests(self):
        again = [self.gateway.url + "/again"] * 4
        reply = self.ask("/first", *again)
        self.assertEqual(reply.trace.count("SSL connection using"), 1)
        self.assertEqual(len(re.findall(r"Re-using existing connection", reply.trace)), 4)

    def test_request_id_of_the_answer_is_in_the_log(self):
        reply = self.ask("/logged?not=this")
        record = self.gateway.record(reply.fields["x-request-id"])
        self.assertEqual((record["status"], record["path"], record["route"]), (200, "/logged", "app"))
        self.assertEqual(record["user"]["subject"], "alice")


class Http1(Everyday, Topic):
    version = ("--http1.1",)
    spoken = "1.1"

    def test_expect_continue_is_answered_before_the_body(self):
        expect = ("--header", "Expect: 100-continue", "--expect100-timeout", "25")
        reply = self.ask("/upload", *expect, "--data-binary", "@-", stdin=BODY)
        self.assertEqual(reply.json()["body_bytes"], len(BODY))
        self.assertRegex(reply.trace, r"< HTTP/\S+ 100")
        self.assertLess(reply.figures["time_total"], 25, "the client waited in vain for 100 Continue")

    def test_old_client_gets_its_answer_and_the_end(self):
        reply = self.ask("/old", "--http1.0", "--no-alpn")
        self.assertEqual((reply.status, reply.json()["target"]), (200, "/old"))
        self.assertIn("Closing connection", reply.trace)


class Http2(Everyday, Topic):
    version = ("--http2",)
    spoken = "2"


class Tls(Topic):
    """The oldest TLS version that is spoken, and older ones."""

    programs = ("curl",)

    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url)))

    def test_tls_1_2_is_spoken(self):
        self.assertEqual(Curl(self.gateway, "--tls-max", "1.2")("/public/").status, 200)

    def test_older_ones_are_refused(self):
        for version in ("1.0", "1.1"):
            old = ("--tls-max", version, f"--tlsv{version}", "--ciphers", "DEFAULT@SECLEVEL=0")
            with self.subTest(version), self.assertRaisesRegex(Failed, "alert (protocol version|handshake failure)"):
                Curl(self.gateway, *old)("/public/")

"""nginx as the upstream, and nginx in front that asks the gateway (forward authentication)."""

# Proves: UP-4, UP-5, HDR-1, HDR-4

import http.client
import pathlib
import re
import subprocess
import threading
import time

import httpx

from frame.curl import Curl
from frame.echo import Echo, fields
from frame.gateway import Gateway, bearer, token
from frame.process import PATIENCE, free_port
from frame.runner import Topic
from frame.servers import Nginx

DOCUMENT = pathlib.Path(__file__).resolve().parents[3] / "docs" / "forward-auth.md"

TEXT = b"a line of a file that nginx serves\n" * 3000

UPSTREAM = """
server {{
    {listen}
    root {root};
    gzip on;
    gzip_min_length 100;
    gzip_proxied any;  # docs/headers.md says why
    gzip_types text/plain;
    absolute_redirect off;
    # Closes connections long before the gateway does, and after a few requests.
    keepalive_timeout 150ms;
    keepalive_requests 7;
    client_max_body_size 64m;
    location /app/ {{
        proxy_pass {echo}/inner/;
        proxy_http_version 1.1;
        proxy_set_header X-Nginx-Saw "$http_x_forwarded_user|$http_x_forwarded_for|$http_x_real_ip|$host|$scheme";
    }}
    location = /small {{ return 200 "small\\n"; }}
    location = /protocol {{ return 200 "$server_protocol\\n"; }}
    location = /broken {{ return 444; }}
}}
"""

ROUTES = """
[[upstream]]
name = "nginx"
servers = ["{server}"]
{more}
[[route]]
name = "app"
path_prefix = "/"
upstream = "nginx"
access = "authenticated"
max_body = "64MiB"
"""


class Served:
    """What holds however nginx is reached: `place` gives its `listen`, the gateway's `servers` and more of the upstream."""

    programs = ("nginx", "curl")
    scheme = "http"

    @classmethod
    def begin(cls):
        root = cls.folder / "www"
        (root / "folder").mkdir(parents=True)
        (root / "text.txt").write_bytes(TEXT)
        (root / "folder" / "index.html").write_text("index\n")
        cls.port = free_port()
        cls.echo = cls.keep(Echo())
        listen, server, more = cls.place()
        configuration = UPSTREAM.format(listen=listen, root=root, echo=cls.echo.url)
        cls.nginx = cls.keep(Nginx(cls.folder / "nginx", configuration, cls.port))
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(server=server, more=more)))
        cls.alice = token("alice")

    def ask(self, path, *words, **options):
        return Curl(self.gateway)(path, *words, user_token=self.alice, **options)

    def test_file_with_its_validators(self):
        first = self.ask("/text.txt")
        self.assertEqual((first.status, first.body, first.fields["server"][:5]), (200, TEXT, "nginx"))
        for condition in (f"If-None-Match: {first.fields['etag']}", f"If-Modified-Since: {first.fields['last-modified']}"):
            again = self.ask("/text.txt", "--header", condition)
            self.assertEqual((again.status, again.body), (304, b""))

    def test_ranges(self):
        self.assertEqual(self.ask("/text.txt", "--range", "10-19").body, TEXT[10:20])
        self.assertEqual(self.ask("/text.txt", "--range", "-5").body, TEXT[-5:])
        several = self.ask("/text.txt", "--range", "0-3,10-13")
        self.assertEqual(several.status, 206)
        self.assertTrue(several.fields["content-type"].startswith("multipart/byteranges"))
        self.assertEqual(self.ask("/text.txt", "--range", "999999-").status, 416)
        self.assertEqual(self.ask("/text.txt", "--range", "0-3", "--header", 'If-Range: "other"').status, 200)

    def test_gzip_of_nginx_is_not_touched(self):
        packed = self.ask("/text.txt", "--header", "Accept-Encoding: gzip")
        self.assertEqual((packed.fields["content-encoding"], packed.body[:2]), ("gzip", b"\x1f\x8b"))
        self.assertNotIn("content-length", packed.fields)
        self.assertEqual(self.ask("/text.txt", "--compressed").body, TEXT)

    def test_index_redirect_and_missing_file_are_those_of_nginx(self):
        self.assertEqual(self.ask("/folder/").body, b"index\n")
        moved = self.ask("/folder")
        self.assertEqual((moved.status, moved.fields["location"]), (301, "/folder/"))
        missing = self.ask("/missing")
        self.assertEqual((missing.status, missing.fields["content-type"]), (404, "text/html"))

    def test_identity_reaches_the_server_behind_nginx(self):
        forged = ("--header", "X-Forwarded-User: mallory", "--header", "X-Forwarded-For: 192.0.2.1")
        seen = self.ask("/app/x?y", *forged).json()
        self.assertEqual(seen["target"], "/inner/x?y")
        self.assertEqual(fields(seen, "x-forwarded-user"), ["alice"])
        self.assertEqual(fields(seen, "x-nginx-saw"), [f"alice|127.0.0.1|127.0.0.1|localhost|{self.scheme}"])

    def test_upload_through_nginx(self):
        body = bytes(range(256)) * 4096
        seen = self.ask("/app/up", "--upload-file", "-", "--header", "Expect: 100-continue", stdin=body).json()
        self.assertEqual(seen["body_bytes"], len(body))

    def test_answer_that_never_comes_is_a_502(self):
        reply = self.ask("/broken")
        self.assertEqual((reply.status, reply.json()["code"]), (502, "upstream_unreachable"))


class OverTcp(Served, Topic):
    @classmethod
    def place(cls):
        return f"listen 127.0.0.1:{cls.port};", f"http://127.0.0.1:{cls.port}", ""

    def test_connections_that_nginx_closes_lose_no_request(self):
        with httpx.Client(base_url=self.gateway.url, verify=self.gateway.tls(), timeout=PATIENCE) as client:
            statuses = []
            for number in range(60):
                method, path = (("GET", "/small"), ("POST", "/app/x"))[number % 2]
                answer = client.request(method, path, headers={"Authorization": f"Bearer {self.alice}"})
                statuses.append(answer.status_code)
                if number % 5 == 0:
                    time.sleep(0.3)  # nginx has closed by then; between the others it closes after each seventh
        self.assertEqual(statuses, [200] * 60)

    def test_reload_of_nginx_under_traffic_loses_no_request(self):
        stop, bad, counts = threading.Event(), [], []

        def stream(path):
            port, tls = self.gateway.port, self.gateway.tls()
            connection = http.client.HTTPSConnection("localhost", port, context=tls, timeout=PATIENCE)
            count = 0
            while not stop.is_set():
                connection.request("GET", path, headers={"Authorization": f"Bearer {self.alice}"})
                response = connection.getresponse()
                text = response.read()
                count += 1
                if response.status != 200:
                    bad.append((path, response.status, text))
            connection.close()
            counts.append(count)

        # A request with a body cannot be sent twice, so POST is not promised what GET is.
        jobs = ["/text.txt", "/small", "/app/x", "/folder/"]
        threads = [threading.Thread(target=stream, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                self.nginx.reload()
                time.sleep(0.3)
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        self.assertEqual(bad, [])
        self.assertEqual(len(counts), len(jobs), "a client ended early")
        self.assertGreater(min(counts), 5)


class OverUnixSocket(Served, Topic):
    @classmethod
    def place(cls):
        socket = cls.folder / "nginx.sock"
        return f"listen 127.0.0.1:{cls.port};\n    listen unix:{socket};", f"unix:{socket}", ""


class OverTls(Served, Topic):
    programs = ("nginx", "curl", "openssl")
    scheme = "https"

    @classmethod
    def place(cls):
        cls.certificate = self_signed(cls.folder, "backend.test")
        key = cls.certificate.with_suffix(".key")
        listen = f"listen 127.0.0.1:{cls.port} ssl;\n    ssl_certificate {cls.certificate};\n    ssl_certificate_key {key};"
        tls = f'tls = {{ ca = "{cls.certificate}", server_name = "backend.test" }}'
        return listen, f"https://127.0.0.1:{cls.port}", tls

    def test_certificate_that_is_not_believed_ends_it(self):
        other = self_signed(self.folder, "other.test")
        untrusted = {
            "another name": f'ca = "{self.certificate}", server_name = "other.test"',
            "another issuer": f'ca = "{other}", server_name = "backend.test"',
            "the system's issuers": 'server_name = "backend.test"',
        }
        for number, (name, tls) in enumerate(untrusted.items()):
            with self.subTest(name):
                routes = ROUTES.format(server=f"https://127.0.0.1:{self.port}", more=f"tls = {{ {tls} }}")
                gateway = Gateway(self.folder / str(number), routes)
                self.addCleanup(gateway.stop)
                before = len(self.echo.seen)
                reply = Curl(gateway)("/app/x", user_token=self.alice)
                self.assertEqual((reply.status, reply.json()["code"]), (502, "upstream_tls"))
                self.assertEqual(len(self.echo.seen), before)


class OverCleartextHttp2(Served, Topic):
    @classmethod
    def place(cls):
        return f"listen 127.0.0.1:{cls.port} http2;", f"http://127.0.0.1:{cls.port}", 'protocol = "h2"'


class OverWhateverTlsAgreesOn(Served, Topic):
    programs = ("nginx", "curl", "openssl")
    scheme = "https"

    @classmethod
    def place(cls):
        certificate = self_signed(cls.folder, "backend.test")
        key = certificate.with_suffix(".key")
        listen = f"listen 127.0.0.1:{cls.port} ssl http2;\n    ssl_certificate {certificate};\n    ssl_certificate_key {key};"
        tls = f'tls = {{ ca = "{certificate}", server_name = "backend.test" }}\nprotocol = "auto"'
        return listen, f"https://127.0.0.1:{cls.port}", tls

    def test_it_is_http2(self):
        self.assertEqual(self.ask("/protocol").body, b"HTTP/2.0\n")


def self_signed(folder, name):
    """Makes a certificate for a name and its key beside it; gives the certificate's path."""
    certificate = folder / f"{name}.crt"
    request = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
    names = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:false")
    files = ("-keyout", certificate.with_suffix(".key"), "-out", certificate)
    subprocess.run(["openssl", *request, *names, *files], check=True, capture_output=True, timeout=PATIENCE)
    return certificate


FRONT_ROUTES = """
[forward_auth]
[[route]]
name = "app"
path_prefix = "/"
access = "authenticated"
[[route]]
name = "public"
path_prefix = "/public"
access = "public"
[[route]]
name = "audit"
path_prefix = "/audit"
access = "authenticated"
require = {{ roles = ["auditor"] }}
"""


class ForwardAuthentication(Topic):
    """nginx in front, with the very configuration that docs/forward-auth.md gives."""

    programs = ("nginx",)

    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        routes = FRONT_ROUTES.replace("{{", "{").replace("}}", "}")
        cls.gateway = cls.keep(Gateway(cls.folder, routes, server='trusted_proxies = ["127.0.0.1/32"]'))
        cls.port = free_port()
        block = re.search(r"^## nginx\n+```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)[1]
        block = block.replace("http://127.0.0.1:9000", cls.echo.url)
        block = block.replace("https://127.0.0.1:8443", f"https://127.0.0.1:{cls.gateway.port}")
        block = block.replace("/etc/portcullis/certs/dev.crt", str(cls.gateway.certificate))
        server = f"server {{\n listen 127.0.0.1:{cls.port};\n{block}\n}}"
        cls.nginx = cls.keep(Nginx(cls.folder / "nginx", server, cls.port))

    def ask(self, path, headers=(), **options):
        return httpx.request(
            options.pop("method", "GET"), f"http://127.0.0.1:{self.port}{path}", headers=dict(headers), timeout=PATIENCE, **options
        )

    def test_caller_with_a_token_gets_through_by_name(self):
        answer = self.ask("/x?y", {"Authorization": bearer("alice", roles=["clerk"]), "X-Forwarded-User": "mallory"})
        seen = answer.json()
        self.assertEqual(seen["target"], "/x?y")
        self.assertEqual(fields(seen, "x-forwarded-user"), ["alice"])
        self.assertEqual(fields(seen, "x-forwarded-groups"), ["clerk"])

    def test_body_is_forwarded_though_the_gateway_never_saw_it(self):
        answer = self.ask("/x", {"Authorization": bearer("alice")}, method="POST", content=b"x" * 100000)
        self.assertEqual(answer.json()["body_bytes"], 100000)

    def test_others_are_refused(self):
        before = len(self.echo.seen)
        self.assertEqual(self.ask("/x").status_code, 401)
        self.assertEqual(self.ask("/x", {"Authorization": "Bearer x.y.z"}).status_code, 401)
        self.assertEqual(self.ask("/audit", {"Authorization": bearer("alice")}).status_code, 403)
        self.assertEqual(len(self.echo.seen), before)

    def test_forged_name_of_an_anonymous_caller_is_taken_away(self):
        forged = {"X-Forwarded-User": "mallory", "X-Forwarded-Groups": "admin"}
        seen = self.ask("/public/x", forged).json()
        self.assertEqual((fields(seen, "x-forwarded-user"), fields(seen, "x-forwarded-groups")), ([], []))

    def test_client_cannot_say_what_it_asks_for(self):
        for field in ("X-Original-URL", "X-Original-URI", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host"):
            answer = self.ask("/audit", {"Authorization": bearer("alice"), field: "/public/x"})
            self.assertEqual(answer.status_code, 403, field)

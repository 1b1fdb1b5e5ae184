"""The verifiers that docs/assertion.md shows, as they stand there, before a real gateway."""

# Proves: HDR-10, JWT-4

import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from frame.echo import Echo, fields
from frame.gateway import Gateway, bearer, encoded, part
from frame.process import PATIENCE, Process, free_port
from frame.runner import Topic
from frame.servers import Nginx

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "assertion.md"
TYPE = "portcullis-assertion+jwt"

ROUTES = """
[identity]
assertion = true
[[upstream]]
name = "orders"
servers = ["{url}"]
[[upstream]]
name = "billing"
servers = ["{url}"]
[[route]]
name = "orders"
path_prefix = "/orders"
upstream = "orders"
access = "authenticated"
[[route]]
name = "billing"
path_prefix = "/billing"
upstream = "billing"
access = "authenticated"
"""

# Each reads a list of cases from standard input and prints, for each, the caller's `sub` or null.
DRIVERS = {
    "python": """

import sys
def outcome(case):
    try:
        return caller(*case)["sub"]
    except jwt.InvalidTokenError:
        return None
print(json.dumps([outcome(case) for case in json.load(sys.stdin)]))
""",
    "js": """

import { readFileSync } from "node:fs";
const said = [];
for (const [assertion, method, target] of JSON.parse(readFileSync(0))) {
  said.push(await caller(assertion, method, target).then((claims) => claims.sub, () => null));
}
console.log(JSON.stringify(said));
""",
    "php": """

$said = [];
foreach (json_decode(stream_get_contents(STDIN), true) as [$assertion, $method, $target]) {
    try {
        $said[] = caller($assertion, $method, $target)['sub'];
    } catch (UnexpectedValueException | JsonException $refused) {
        $said[] = null;
    }
}
echo json_encode($said);
""",
}

# The small service that nginx asks.
SERVICE = """

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            (assertion,) = self.headers.get_all("X-Portcullis-Assertion", [])
            method, target = self.headers["X-Assertion-Method"], self.headers["X-Assertion-Target"]
            user = caller(assertion, method, target)["sub"]
        except (ValueError, jwt.InvalidTokenError):
            self.send_response(403)
        else:
            self.send_response(204)
            self.send_header("X-User", user)
        self.end_headers()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
"""


def shown(language):
    """The one block of this language on the page."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        raise AssertionError(f"{len(found)} blocks of {language} in {PAGE.name}")
    return found[0]


class Assertions(Topic):
    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), port=free_port()))
        cls.keys = cls.folder / "keys.json"
        address = f"{cls.gateway.url}/.well-known/portcullis-assertion-jwks.json"
        with urllib.request.urlopen(address, context=cls.gateway.tls(), timeout=PATIENCE) as answer:
            cls.keys.write_bytes(answer.read())
        cls.jwk = json.loads(cls.keys.read_bytes())["keys"][0]
        folder = cls.gateway.folder / "data" / "assertion-keys"
        cls.private = (folder / f"{cls.jwk['kid']}.pem").read_text(encoding="ascii")
        cls.cases = cls.make_cases()

    @classmethod
    def asked(cls, method, target, user="alice"):
        """Asks for something; gives the assertion, method and target that the backend received."""
        connection = http.client.HTTPSConnection("localhost", cls.gateway.port, context=cls.gateway.tls(), timeout=PATIENCE)
        connection.request(method, target, headers={"Authorization": bearer(user), "X-Portcullis-Assertion": "forged"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            raise AssertionError(f"{method} {target}: {answer.status}")
        seen = cls.echo.seen[-1]
        (assertion,) = fields(seen, "x-portcullis-assertion")
        return assertion, seen["method"], seen["target"]

    @classmethod
    def forged(cls, target, headers=(), key=None, **claims):
        """What the key of the gateway, or another one, signs; a good assertion but for what is given."""
        now = int(time.time())
        digest = encoded(hashlib.sha256(target.encode()).digest())
        good = {"iss": cls.gateway.url, "aud": "orders", "iat": now, "exp": now + 60, "htm": "GET", "target_hash": digest}
        claims = {**good, "sub": "mallory", "idp": "x", "roles": [], "scopes": [], **claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        headers = {"typ": TYPE, "kid": cls.jwk["kid"], **dict(headers)}
        return jwt.encode(claims, key or cls.private, algorithm="ES256", headers=headers)

    @classmethod
    def make_cases(cls):
        """Name, case, and whom it proves."""
        now = int(time.time())
        good, method, target = cls.asked("GET", "/orders/7?full=1&x=%2F")
        billing, *_ = cls.asked("GET", "/billing")
        head, body, signature = good.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        unsigned = part({"alg": "none", "typ": TYPE, "kid": cls.jwk["kid"]})
        other = ec.generate_private_key(ec.SECP256R1())
        confused = f"{part({'alg': 'HS256', 'typ': TYPE, 'kid': cls.jwk['kid']})}.{body}"
        secret = json.dumps(cls.jwk).encode()
        confused = f"{confused}.{encoded(hmac.digest(secret, confused.encode(), hashlib.sha256))}"
        flipped = ("A" if signature[10] != "A" else "B").join([signature[:10], signature[11:]])

        def this(assertion):
            return assertion, method, target

        return [
            ("good", this(good), "alice"),
            ("good POST", cls.asked("POST", "/orders", "bob"), "bob"),
            ("good HEAD", cls.asked("HEAD", "/orders/a%20b?"), "alice"),
            ("made by the test", this(cls.forged(target)), "mallory"),
            ("another path", (good, method, "/orders/8?full=1&x=%2F"), None),
            ("without the query", (good, method, "/orders/7"), None),
            ("another query", (good, method, target + "&y"), None),
            ("decoded", (good, method, "/orders/7?full=1&x=/"), None),
            ("another method", (good, "DELETE", target), None),
            ("the method in small letters", (good, "get", target), None),
            ("for another upstream", (billing, "GET", "/billing"), None),
            ("expired", this(cls.forged(target, iat=now - 61, exp=now - 1)), None),
            ("of an hour", this(cls.forged(target, exp=now + 3600)), None),
            ("of the future", this(cls.forged(target, iat=now + 600, exp=now + 660)), None),
            ("of another gateway", this(cls.forged(target, iss="https://elsewhere.example")), None),
            ("an access token", this(cls.forged(target, headers={"typ": "at+jwt"})), None),
            ("any JWT", this(cls.forged(target, headers={"typ": "JWT"})), None),
            ("by another key", this(cls.forged(target, key=other)), None),
            ("by an unknown key", this(cls.forged(target, headers={"kid": "x"}, key=other)), None),
            ("changed", this(f"{head}.{part({**claims, 'sub': 'root'})}.{signature}"), None),
            ("with another signature", this(f"{head}.{body}.{flipped}"), None),
            ("without a signature", this(f"{head}.{body}."), None),
            ("with a signature of zeros", this(f"{head}.{body}.{encoded(bytes(64))}"), None),
            ("of two parts", this(f"{head}.{body}"), None),
            ("of four parts", this(f"{good}.{signature}"), None),
            ("alg none", this(f"{unsigned}.{body}."), None),
            ("alg none, signed", this(f"{unsigned}.{body}.{signature}"), None),
            ("HS256 by the public key", this(confused), None),
            ("empty", this(""), None),
            ("no token", this("forged"), None),
        ]

    def judge(self, language, command, ending, **environment):
        script = self.verifier(language, ending, DRIVERS[language])
        cases = json.dumps([case for _, case, _ in self.cases])
        environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        options = {"input": cases, "capture_output": True, "text": True, "timeout": PATIENCE, "env": environment}
        done = subprocess.run([*command, str(script)], **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual(len(said), len(self.cases))
        for (name, _, whom), found in zip(self.cases, said):
            with self.subTest(name):
                self.assertEqual(found, whom)

    def verifier(self, language, ending, driver):
        """What the page shows, with the names of this gateway and a driver behind it, as a file."""
        text = shown(language).replace('"https://gate.example.com"', json.dumps(self.gateway.url))
        text = text.replace("'https://gate.example.com'", f"'{self.gateway.url}'")
        text = text.replace("'/var/lib/app/keys.json'", f"'{self.keys}'")
        self.assertNotIn("gate.example.com", text)
        script = self.folder / f"{self.id()}.{ending}"
        script.write_text(text + driver, encoding="utf-8")
        return script

    def needs(self, program):
        if shutil.which(program) is None:
            self.skipTest(f"{program} is missing")

    def test_python(self):
        self.judge("python", [sys.executable], "py", SSL_CERT_FILE=self.gateway.certificate)

    def test_node(self):
        self.needs("node")
        self.judge("js", ["node"], "mjs", NODE_EXTRA_CA_CERTS=self.gateway.certificate)

    def test_php(self):
        self.needs("php")
        self.judge("php", ["php", "-n"], "php")

    def test_nginx_asks_a_verifier(self):
        self.needs("nginx")
        port, asked = free_port(), free_port()
        script = self.verifier("python", "py", SERVICE)
        environment = {**os.environ, "SSL_CERT_FILE": str(self.gateway.certificate)}
        service = Process([sys.executable, script, asked], env=environment)
        self.addCleanup(service.stop)
        service.listens_on(asked)
        locations = shown("nginx").replace(":9000;", f":{self.echo.port};").replace(":9100;", f":{asked};")
        nginx = Nginx(self.folder / "nginx", f"server {{\nlisten 127.0.0.1:{port};\n{locations}\n}}", port)
        self.addCleanup(nginx.stop)
        wanted = [case for case in self.cases if case[1][1] in ("GET", "POST", "DELETE")]
        for name, (assertion, method, target), whom in wanted:
            with self.subTest(name):
                before = len(self.echo.seen)
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                given = {"X-Portcullis-Assertion": assertion, "X-User": "root"}
                forged = {"X-Assertion-Target": self.cases[0][1][2], "X-Assertion-Method": "GET"}
                connection.request(method, target, headers={**given, **forged})
                status = connection.getresponse().status
                connection.close()
                if whom is None:
                    self.assertEqual((status, len(self.echo.seen)), (403, before))
                else:
                    seen = self.echo.seen[-1]
                    self.assertEqual((status, fields(seen, "x-user")), (200, [whom]))
                    self.assertEqual(fields(seen, "x-portcullis-assertion"), [])

    def test_no_identity_no_assertion(self):
        connection = http.client.HTTPSConnection("localhost", self.gateway.port, context=self.gateway.tls(), timeout=PATIENCE)
        before = len(self.echo.seen)
        connection.request("GET", "/orders", headers={"X-Portcullis-Assertion": self.cases[0][1][0]})
        self.assertEqual(connection.getresponse().status, 401)
        connection.close()
        self.assertEqual(len(self.echo.seen), before)

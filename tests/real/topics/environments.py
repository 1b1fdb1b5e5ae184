"""WSGI and CGI make one variable of names that HTTP keeps apart: none of them may carry what a client wrote."""

# Proves: HDR-1, HDR-2, HDR-7

import http.client
import itertools
import json
import pathlib

from frame.gateway import Gateway, bearer
from frame.process import PATIENCE
from frame.runner import Topic
from frame.servers import Gunicorn, Lighttpd, Php, Waitress, Wsgiref

APPS = pathlib.Path(__file__).resolve().parent.parent / "apps"

ROUTES = """
[identity]
preset = "{preset}"
headers = {{ "X-Tenant-Id" = "{{claims.tenant}}" }}
[[upstream]]
name = "server"
servers = ["http://127.0.0.1:{port}"]
[[route]]
name = "private"
path_prefix = "/private"
upstream = "server"
access = "authenticated"
[[route]]
name = "optional"
path_prefix = "/optional"
upstream = "server"
access = "optional"
[[route]]
name = "public"
path_prefix = "/public"
upstream = "server"
access = "public"
"""

# What an application might believe, from every preset and from other gateways.
NAMES = """
X-Forwarded-User X-Forwarded-Email X-Forwarded-Preferred-Username X-Forwarded-Groups X-Auth-Issuer X-Auth-Scopes X-Tenant-Id
Remote-User Remote-Email Remote-Name Remote-Groups X-Remote-User X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host
X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Server X-Forwarded-Uri X-Forwarded-Method X-Forwarded-Client-Cert Forwarded
X-Real-IP X-Request-Id X-Original-URL X-Original-Uri X-Original-Method X-Rewrite-URL X-Portcullis-Assertion
X-Auth-Request-User X-SSL-Client-Verify SSL-Client-Cert Client-Cert Client-Cert-Chain X-Client-Cert X-Client-Verify X-SSL-Cert
X-ARR-ClientCert X-Cluster-Client-IP X-Client-IP True-Client-IP CF-Connecting-IP Proxy
""".split()

# Of which two in one request would be refused.
ONCE = ("X-Request-Id",)

FORGED = "mallory"

CLAIMS = {"email": "alice@example.com", "preferred_username": "Alice", "roles": ["clerk"], "scope": "read", "tenant": "acme"}

# What the gateway itself writes, by preset; all else of NAMES must be absent.
WRITTEN = {
    "portcullis": {
        "X-Forwarded-User": "alice",
        "X-Forwarded-Email": "alice@example.com",
        "X-Forwarded-Preferred-Username": "Alice",
        "X-Forwarded-Groups": "clerk",
        "X-Auth-Issuer": "https://issuer.test",
        "X-Auth-Scopes": "read",
        "X-Tenant-Id": "acme",
    },
    "authelia": {
        "Remote-User": "alice",
        "Remote-Email": "alice@example.com",
        "Remote-Name": "Alice",
        "Remote-Groups": "clerk",
        "X-Tenant-Id": "acme",
    },
}

ALWAYS = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Forwarded-Proto": "https"}


def variants(name):
    """A name with each of its hyphens as hyphen, underscore or dot, and in other cases."""
    parts = name.split("-")
    for separators in itertools.product("-_.", repeat=len(parts) - 1):
        spelt = parts[0] + "".join(separator + part for separator, part in zip(separators, parts[1:]))
        yield spelt
        if name not in ONCE:
            yield spelt.upper()
            yield spelt.lower()


def variable(name):
    return "HTTP_" + name.upper().replace("-", "_").replace(".", "_")


SPELLINGS = [spelling for name in NAMES for spelling in variants(name)]


class Environment:
    """The tests, for each kind of server."""

    programs = ()
    preset = "portcullis"

    @classmethod
    def begin(cls):
        server = cls.keep(cls.server())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(port=server.port, preset=cls.preset)))

    def environments(self, path, headers):
        """What the application was told, for every spelling sent at least once, some dozens in each request."""
        connection = http.client.HTTPSConnection("localhost", self.gateway.port, context=self.gateway.tls(), timeout=PATIENCE)
        self.addCleanup(connection.close)
        for first in range(0, len(SPELLINGS), 80):
            connection.putrequest("GET", path)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("X-Kept", "kept")
            for spelling in SPELLINGS[first : first + 80]:
                connection.putheader(spelling, FORGED)
            connection.endheaders()
            response = connection.getresponse()
            text = response.read()
            self.assertEqual(response.status, 200, text)
            yield json.loads(text)["environ"]

    def check(self, path, headers, written):
        """Each of NAMES must be as the gateway wrote it, or absent; no variable may hold what the client wrote."""
        expected = {variable(name): value for name, value in {**ALWAYS, **written}.items()}
        free = {variable(name) for name in ("X-Request-Id", "X-Forwarded-Host")}  # the gateway's, and different each time
        for environ in self.environments(path, headers):
            self.assertEqual({name: value for name, value in environ.items() if FORGED in value}, {})
            told = {variable(name) for name in NAMES} & environ.keys() - free
            self.assertEqual({name: environ[name] for name in told}, expected)
            self.assertTrue(free <= environ.keys())
            self.assertEqual(environ.get("HTTP_X_KEPT"), "kept")
            self.assertNotIn("REMOTE_USER", environ)
            self.assertNotIn("HTTP_AUTHORIZATION", environ)

    def test_verified_caller(self):
        self.check("/private/x", {"Authorization": bearer("alice", **CLAIMS)}, WRITTEN[self.preset])

    def test_caller_whose_claims_are_missing(self):
        user = {"authelia": "Remote-User", "portcullis": "X-Forwarded-User"}[self.preset]
        issuer = {"X-Auth-Issuer": "https://issuer.test"} if self.preset == "portcullis" else {}
        self.check("/private/x", {"Authorization": bearer("bob")}, {user: "bob", **issuer})

    def test_anonymous_caller(self):
        self.check("/optional/x", {}, {})

    def test_public_route(self):
        self.check("/public/x", {}, {})


class WsgiOfTheStandardLibrary(Environment, Topic):
    """wsgiref keeps every name, so that nothing but the gateway stands between."""

    @classmethod
    def server(cls):
        return Wsgiref(APPS / "wsgi_environ.py")


class WsgiWithNamesOfAuthelia(WsgiOfTheStandardLibrary):
    preset = "authelia"


class WsgiOfGunicorn(Environment, Topic):
    @classmethod
    def server(cls):
        return Gunicorn(cls.folder, APPS / "wsgi_environ.py")


class WsgiOfWaitress(Environment, Topic):
    @classmethod
    def server(cls):
        return Waitress(APPS / "wsgi_environ.py")


class CgiOfLighttpd(Environment, Topic):
    """lighttpd writes dots as underscores, too."""

    programs = ("lighttpd",)

    @classmethod
    def server(cls):
        return Lighttpd(cls.folder / "lighttpd", APPS / "cgi_environ.py")


class PhpServer(Environment, Topic):
    programs = ("php",)

    @classmethod
    def server(cls):
        return Php(APPS / "environ.php")

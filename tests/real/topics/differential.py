"""The same bytes to several servers behind the gateway: all of them must read the same request, or none reads any."""

# Proves: VER-2, MSG-1, MSG-2, MSG-4, MSG-9, MSG-10, URI-1

import json
import pathlib
import re
import socket
import urllib.parse

from frame.echo import Echo, fields
from frame.gateway import Gateway
from frame.process import PATIENCE, free_port
from frame.runner import Topic
from frame.servers import Gunicorn, Lighttpd, Nginx, Node, Php, Waitress, Wsgiref

APPS = pathlib.Path(__file__).resolve().parent.parent / "apps"

NGINX = """
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass {echo};
        proxy_set_header Host $http_host;
        proxy_set_header N-Method $request_method;
        proxy_set_header N-Path $uri;
        proxy_set_header N-Query $args;
    }}
}}
"""

UPSTREAM = """
[[upstream]]
name = "{name}"
servers = ["http://127.0.0.1:{port}"]
[[route]]
name = "{name}"
hosts = ["{name}.test"]
path_prefix = "/"
upstream = "{name}"
access = "public"
"""


def simple(target, *lines, method="GET", body=b"", version="HTTP/1.1"):
    """A request in the usual form; `lines` are fields."""
    head = [f"{method} {target} {version}", "Host: HOST", *lines]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*lines, body, name="Transfer-Encoding: chunked"):
    return simple("/c", name, *lines, method="POST", body=body)


# What every server must be given, and in the same way. HOST stands for the name of the server.
READ = {
    "plain": simple("/a/b?c=d"),
    "no query but its mark": simple("/a?"),
    "two question marks": simple("/a?b?c"),
    "query that looks like a path": simple("/a?x=/../public"),
    "plus stays plus": simple("/a+b?c+d"),
    "space escaped": simple("/a%20b?c%20d"),
    "unreserved escaped": simple("/%61%2Db/%7e"),
    "UTF-8 escaped": simple("/caf%C3%A9?%C3%A9"),
    "slashes repeated": simple("//a///b"),
    "colon and at": simple("/a:b@c"),
    "dots within a name": simple("/a..b/.c/d."),
    "brackets in the query": simple("/a?b[]=1&b[]=2"),
    "percent in the query": simple("/a?100%25"),
    "host with a port": simple("/a").replace(b"Host: HOST", b"Host: HOST:443"),
    "host in capitals": simple("/a").replace(b"Host: HOST", b"host:HOST"),
    "absolute form": simple("https://HOST/abs?q"),
    "absolute form with another Host": simple("https://HOST/abs").replace(b"Host: HOST", b"Host: elsewhere.test"),
    "body by length": simple("/p", "Content-Length: 5", method="POST", body=b"hello"),
    "body of no length": simple("/p", "Content-Length: 0", method="POST"),
    "body of GET": simple("/p", "Content-Length: 5", body=b"hello"),
    "body of DELETE": simple("/p", "Content-Length: 5", method="DELETE", body=b"hello"),
    "PUT": simple("/p", "Content-Length: 3", method="PUT", body=b"abc"),
    "PATCH": simple("/p", "Content-Length: 3", method="PATCH", body=b"abc"),
    "OPTIONS": simple("/p", method="OPTIONS"),
    "fields that another server might obey": simple("/a", "X-Original-URL: /b", "X-Rewrite-URL: /c", "X-Forwarded-Host: evil"),
    "framing with underscores": simple("/a", "Content_Length: 7", "Transfer_Encoding: chunked"),
    "empty value, tabs": simple("/a", "X-Empty:", "X-Tab: \ta\tb\t"),
    "old version": simple("/a", version="HTTP/1.0"),
    "old version that wants to go on": simple("/a", "Connection: keep-alive", version="HTTP/1.0"),
    "connection that names content-length": simple(
        "/p", "Content-Length: 5", "Connection: content-length", method="POST", body=b"hello"
    ),
    "second request in the body": simple("/p", "Content-Length: 37", method="POST", body=b"GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r"),
}

# Bodies in chunks, which WSGI's reference server cannot read.
CHUNKED = {
    "one chunk": chunked(body=b"5\r\nhello\r\n0\r\n\r\n"),
    "several, sizes in capitals, leading zeros": chunked(body=b"000A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"),
    "extension": chunked(body=b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'),
    "trailer": chunked("Trailer: X-Late", body=b"5\r\nhello\r\n0\r\nX-Late: 1\r\nContent-Length: 99\r\n\r\n"),
    "length beside the chunks": chunked("Content-Length: 3", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "name of the coding in capitals": chunked(name="transfer-ENCODING: CHUNKED", body=b"5\r\nhello\r\n0\r\n\r\n"),
}

# What no server may be given at all.
REFUSED = {
    "two lengths": simple("/p", "Content-Length: 5", "Content-Length: 6", method="POST", body=b"hello!"),
    "list of lengths": simple("/p", "Content-Length: 5, 6", method="POST", body=b"hello!"),
    "length with a sign": simple("/p", "Content-Length: +5", method="POST", body=b"hello"),
    "length in hexadecimal": simple("/p", "Content-Length: 0x5", method="POST", body=b"hello"),
    "empty length": simple("/p", "Content-Length:", method="POST", body=b"hello"),
    "coding before chunked": chunked(name="Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "coding after chunked": chunked(name="Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "unknown coding": chunked(name="Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "coding with a vertical tab": chunked(name="Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "coding twice": chunked("Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "space before the colon": simple("/p", "Content-Length : 5", method="POST", body=b"hello"),
    "folded field": simple("/p", "X-A: b\r\n c"),
    "field without a colon": simple("/p", "nonsense"),
    "field without a name": simple("/p", ": nonsense"),
    "NUL in a value": simple("/p", "X-A: b\x00c"),
    "return in a value": simple("/p", "X-A: b\rc"),
    "no host": simple("/p").replace(b"Host: HOST\r\n", b""),
    "two hosts": simple("/p", "Host: HOST"),
    "host with credentials": simple("/p").replace(b"Host: HOST", b"Host: a@HOST"),
    "host with a path": simple("/p").replace(b"Host: HOST", b"Host: HOST/x"),
    "empty host": simple("/p").replace(b"Host: HOST", b"Host:"),
    "parent": simple("/a/../b"),
    "parent escaped": simple("/a/%2e%2e/b"),
    "here": simple("/a/./b"),
    "slash escaped": simple("/a%2fb"),
    "backslash": simple("/a\\b"),
    "backslash escaped": simple("/a%5cb"),
    "NUL escaped": simple("/a%00b"),
    "escaped twice": simple("/a%252fb"),
    "bad escape": simple("/a%zz"),
    "overlong UTF-8": simple("/%c0%ae%c0%ae/x"),
    "parameter": simple("/a;b/c"),
    "fragment": simple("/a#b"),
    "raw byte beyond ASCII": simple("/caf\xe9"),
    "TRACE": simple("/a", method="TRACE"),
    "CONNECT": simple("HOST:443", method="CONNECT"),
    "unknown expectation": simple("/p", "Expect: magic", "Content-Length: 5", method="POST", body=b"hello"),
    "unknown version": simple("/a", version="HTTP/3.0"),
    "no version": b"GET /a\r\n\r\n",
    "space in the target": simple("/a b"),
}


# A server may be stricter than the others.
OWN_REFUSAL = "refused with 400 -"


class Differential(Topic):
    programs = ("lighttpd", "nginx", "node", "php")

    @classmethod
    def begin(cls):
        echo = cls.keep(Echo())
        port = free_port()
        nginx = cls.keep(Nginx(cls.folder / "nginx", NGINX.format(port=port, echo=echo.url), port))
        nginx.port = port
        wsgi = APPS / "wsgi_environ.py"
        cls.readers = {
            "gunicorn": (cls.keep(Gunicorn(cls.folder, wsgi)), of_wsgi),
            "lighttpd": (cls.keep(Lighttpd(cls.folder / "lighttpd", APPS / "cgi_environ.py")), of_cgi),
            "nginx": (nginx, of_nginx),
            "node": (cls.keep(Node(APPS / "node_server.mjs")), of_node),
            "php": (cls.keep(Php(APPS / "environ.php")), of_php),
            "waitress": (cls.keep(Waitress(wsgi)), of_wsgi),
            "wsgiref": (cls.keep(Wsgiref(wsgi)), of_wsgi),
        }
        routes = "".join(UPSTREAM.format(name=name, port=server.port) for name, (server, _) in cls.readers.items())
        cls.gateway = cls.keep(Gateway(cls.folder, routes))

    def answer(self, request, name):
        """Status and body of the answer to these bytes; the connection is closed after one request."""
        octets = request.replace(b"HOST", f"{name}.test".encode())
        with self.gateway.tls().wrap_socket(
            socket.create_connection(("127.0.0.1", self.gateway.port), PATIENCE), server_hostname="localhost"
        ) as stream:
            stream.sendall(octets)
            return read_answer(stream)

    def read_by(self, name, request):
        """The request as a server read it, with HOST for its name; or how it was refused."""
        status, body = self.answer(request, name)
        if status != 200:
            code = json.loads(body)["code"] if body.startswith(b"{") else "-"
            return f"refused with {status} {code}"
        _, of = self.readers[name]
        method, path, query, host, length = of(json.loads(body))
        host = re.sub(rf"^{name}\.test", "HOST", host)
        return method, path, query, host, length

    def same(self, cases, but=()):
        for case, request in cases.items():
            with self.subTest(case):
                read = {name: self.read_by(name, request) for name in self.readers if name not in but}
                shown = "\n".join(f"{name}: {reading}" for name, reading in read.items())
                readings = [reading for reading in read.values() if reading != OWN_REFUSAL]
                self.assertEqual(len(set(readings)), 1, shown)
                self.assertIsInstance(readings[0], tuple, shown)
                self.assertGreaterEqual(len(readings), len(read) - 1, shown)

    def test_requests_are_read_alike(self):
        self.same(READ)

    def test_bodies_in_chunks_are_read_alike(self):
        self.same(CHUNKED, but=("lighttpd", "php", "wsgiref"))

    def test_ambiguous_requests_reach_nobody(self):
        for case, request in REFUSED.items():
            with self.subTest(case):
                read = {self.read_by(name, request) for name in self.readers}
                self.assertEqual(len(read), 1, read)
                self.assertRegex(str(read.pop()), r"^refused with 4\d\d ")


def read_answer(stream):
    """Reads one answer by its length, chunks or end."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = stream.recv(65536)
        if not part:
            raise AssertionError(f"no answer: {received!r}")
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    ends = (lambda: len(body) >= int(length[1])) if length else (lambda: body.endswith(b"0\r\n\r\n"))
    if status == 400 and not length:
        return status, body
    while not ends():
        part = stream.recv(65536)
        if not part:
            break
        body += part
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        body = b"".join(parts_of(body))
    return status, body


def parts_of(chunks):
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        yield chunks[: int(size, 16)]
        chunks = chunks[int(size, 16) + 2 :]


def decoded(text):
    return urllib.parse.unquote(text, encoding="latin-1")


def of_wsgi(answer):
    environ = answer["environ"]
    query = decoded(environ["QUERY_STRING"])
    return environ["REQUEST_METHOD"], environ["PATH_INFO"], query, environ["HTTP_HOST"], answer["body_bytes"]


def of_cgi(answer):
    method, path, *rest = of_wsgi(answer)
    return method, path.encode("utf-8", "surrogateescape").decode("latin-1"), *rest


def of_php(answer):
    environ = answer["environ"]
    path = decoded(environ["REQUEST_URI"].partition("?")[0])
    return environ["REQUEST_METHOD"], path, decoded(environ.get("QUERY_STRING", "")), environ["HTTP_HOST"], answer["body_bytes"]


def of_node(answer):
    path, _, query = answer["url"].partition("?")
    return answer["method"], decoded(path), decoded(query), answer["host"], answer["body_bytes"]


def of_nginx(answer):
    method, path, query = (next(iter(fields(answer, name)), "") for name in ("n-method", "n-path", "n-query"))
    return method, path, decoded(query), fields(answer, "host")[0], answer["body_bytes"]

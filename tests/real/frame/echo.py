"""A backend of our own that answers with what it received, or as the path asks."""

import base64
import gzip
import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# A text that compresses and of which parts can be asked for.
TEXT = b"".join(b"line %d of a text that compresses well\n" % number for number in range(500))
ETAG = '"text-1"'


class Echo:
    """The running backend. `seen` holds every request in the order of arrival."""

    def __init__(self):
        self.seen = []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.seen = self.seen
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients may leave
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Paths: /echo gives the body back, /status/N that status, /text a text with Range and ETag, /gzip it compressed,
    /redirect a redirect, /drip?N events one by one; all else describes the request in JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def answer(self):
        path = urlsplit(self.path).path
        body = self.read_body()
        seen = {
            "method": self.command,
            "target": self.path,
            "version": self.request_version,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body_bytes": len(body),
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
        self.server.seen.append(seen)
        if path == "/echo":
            self.send(200, [("Content-Type", self.headers.get("Content-Type", "application/octet-stream"))], body)
        elif path.startswith("/status/"):
            self.send(int(path.rpartition("/")[2]), [("X-From", "backend")], b"" if "204" in path else b"as you asked\n")
        elif path == "/text":
            self.text()
        elif path == "/gzip":
            self.send(200, [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")], gzip.compress(TEXT, mtime=0))
        elif path == "/redirect":
            self.send(302, [("Location", "/elsewhere?a=b")], b"")
        elif path == "/drip":
            self.drip(int(urlsplit(self.path).query))
        else:
            self.send(200, [("Content-Type", "application/json")], json.dumps(seen).encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self.chunks())
        return self.exactly(int(self.headers.get("Content-Length", "0")))

    def chunks(self):
        while size := int(self.line().split(b";")[0], 16):
            yield self.exactly(size)
            self.line()
        while self.line() != b"\r\n":
            pass

    def exactly(self, count):
        body = self.rfile.read(count)
        if len(body) < count:
            raise ConnectionAbortedError("the body broke off")
        return body

    def line(self):
        line = self.rfile.readline()
        if not line:
            raise ConnectionAbortedError("the body broke off")
        return line

    def text(self):
        if self.headers.get("If-None-Match") == ETAG:
            self.send(304, [("ETag", ETAG)], None)
            return
        fields = [("ETag", ETAG), ("Content-Type", "text/plain"), ("Accept-Ranges", "bytes")]
        span = self.headers.get("Range", "")
        if span.startswith("bytes="):
            first, last = (int(number) for number in span[len("bytes=") :].split("-"))
            fields.append(("Content-Range", f"bytes {first}-{last}/{len(TEXT)}"))
            self.send(206, fields, TEXT[first : last + 1])
        else:
            self.send(200, fields, TEXT)

    def send(self, status, fields, body):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if body is not None and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)

    def drip(self, events):
        """Server-sent events a fifth of a second apart, each with the time at which it was written."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(events):
            event = f"id: {number}\ndata: {time.monotonic()}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            time.sleep(0.2)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


def fields(seen, name):
    """The values of a field that the backend received."""
    return [value for field, value in seen["headers"] if field == name]


def basic(user, password):
    """An Authorization field that is not the gateway's business."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

"""Bodies are streams: events come at once, a gibibyte needs no memory, and whoever reads slowly holds the sender back."""

# Proves: MSG-8, UP-3

import http.client
import itertools
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler

import httpx

from frame.curl import Curl
from frame.echo import Server
from frame.gateway import Gateway, token
from frame.process import PATIENCE, eventually
from frame.runner import Topic

ROUTES = """
[[upstream]]
name = "streams"
servers = ["http://127.0.0.1:{port}"]
[[route]]
name = "app"
path_prefix = "/"
upstream = "streams"
access = "authenticated"
max_body = "2GiB"
"""

# For each version of HTTP, what is sent each way. Over HTTP/2 a busy machine takes a minute for the same.
SIZES = {"--http1.1": 1 << 30, "--http2": 64 << 20}
BLOCK = bytes(1 << 20)

# What the gateway's memory may grow by, whatever passes through it. Its own buffers and those of TLS are far below it.
MEMORY_KIB_MAX = 32 << 10

# What may be on its way from a backend that writes to a client that does not read: the buffers of three sockets on this
# machine, the window of httpx (16 MiB), and what is ours.
ON_THE_WAY_MAX = 96 << 20


class Streams:
    """The backend. An event follows when the one before it was acknowledged by a request of its own, so a gateway that
    holds events back ends in a deadlock and not in a late answer."""

    def __init__(self):
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.streams = self
        self.port = self.server.server_address[1]
        self.acknowledged = threading.Semaphore(0)
        self.sent, self.gone = 0, threading.Event()
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self):
        if self.path == "/events":
            self.events(5)
        elif self.path == "/endless":
            self.endless()
        elif self.path.startswith("/bytes/"):
            size = int(self.path.rpartition("/")[2])
            self.head(("Content-Length", str(size)))
            for _ in range(size // len(BLOCK)):
                self.wfile.write(BLOCK)

    def do_POST(self):
        if self.path == "/next":
            self.server.streams.acknowledged.release()
            self.head(("Content-Length", "0"))

    def do_PUT(self):
        """Reads the body and tells how long it was."""
        left = int(self.headers["Content-Length"])
        while left > 0:
            left -= len(self.rfile.read(min(left, len(BLOCK)))) or left + 1
        answer = json.dumps({"left": left}).encode()
        self.head(("Content-Length", str(len(answer))))
        self.wfile.write(answer)

    def events(self, count):
        self.head(("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"))
        for number in range(count):
            event = f"id: {number}\ndata: hello\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.server.streams.acknowledged.acquire(timeout=PATIENCE)
        self.wfile.write(b"0\r\n\r\n")

    def endless(self):
        streams = self.server.streams
        streams.sent, streams.gone = 0, threading.Event()
        self.head(("Transfer-Encoding", "chunked"))
        chunk = b"%x\r\n%s\r\n" % (len(BLOCK) // 16, BLOCK[: len(BLOCK) // 16])
        try:
            for _ in itertools.count():
                self.wfile.write(chunk)
                streams.sent += len(chunk)
        except OSError:
            streams.gone.set()

    def head(self, *fields):
        self.send_response(200)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


class Streaming(Topic):
    programs = ("curl",)

    @classmethod
    def begin(cls):
        cls.streams = cls.keep(Streams())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(port=cls.streams.port)))
        cls.headers = {"Authorization": f"Bearer {token('alice')}"}

    def client(self, http2):
        tls = self.gateway.tls()
        version = {"http1": not http2, "http2": http2}
        client = httpx.Client(base_url=self.gateway.url, verify=tls, timeout=PATIENCE, headers=self.headers, **version)
        self.addCleanup(client.close)
        return client

    def test_events_are_seen_one_by_one(self):
        for http2 in (False, True):
            with self.subTest(http2=http2):
                client, other, seen = self.client(http2), self.client(False), []
                with client.stream("GET", "/events") as answer:
                    self.assertEqual(answer.headers["content-type"], "text/event-stream")
                    for line in answer.iter_lines():
                        if line.startswith("id: "):
                            seen.append(line)
                            other.post("/next")
                self.assertEqual(seen, [f"id: {number}" for number in range(5)])

    def test_stream_ends_with_its_token_and_not_as_if_it_were_complete(self):
        for http2 in (False, True):
            with self.subTest(http2=http2):
                caller = {"Authorization": f"Bearer {token('alice', seconds=5)}"}
                seen = b""
                with self.assertRaises(httpx.RemoteProtocolError):
                    with self.client(http2).stream("GET", "/events", headers=caller) as answer:
                        for part in answer.iter_raw():
                            seen += part
                self.assertTrue(seen.startswith(b"id: 0\n"), seen)
                self.client(False).post("/next")  # lets the backend go

    def test_curl_sees_events_one_by_one(self):
        for version in ("--http1.1", "--http2"):
            words = ["curl", "--silent", "--no-buffer", version, "--cacert", self.gateway.certificate, "--max-time", str(PATIENCE)]
            field = f"Authorization: {self.headers['Authorization']}"
            command = [*words, "--header", field, self.gateway.url + "/events"]
            with self.subTest(version), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
                seen = []
                for line in curl.stdout:
                    if line.startswith("id: "):
                        seen.append(line.strip())
                        self.client(False).post("/next")
                self.assertEqual(seen, [f"id: {number}" for number in range(5)])

    def grown(self, transfer):
        """What the gateway's highest memory grew by, in KiB, while something was transferred."""
        before = self.gateway.memory_kib()
        transfer()
        return self.gateway.memory_kib("VmHWM") - before

    def test_gibibyte_up_needs_no_memory(self):
        source = self.folder / "source"
        for version, size in SIZES.items():
            with open(source, "wb") as file:
                file.truncate(size)
            with self.subTest(version):

                def upload():
                    reply = self.curl(version, "/up", "--upload-file", source)
                    self.assertEqual((reply.json(), reply.figures["size_upload"]), ({"left": 0}, size))

                self.assertLess(self.grown(upload), MEMORY_KIB_MAX)

    def test_gibibyte_down_needs_no_memory(self):
        for version, size in SIZES.items():
            with self.subTest(version):

                def download():
                    reply = self.curl(version, f"/bytes/{size}", "--output", "/dev/null")
                    self.assertEqual(reply.figures["size_download"], size)

                self.assertLess(self.grown(download), MEMORY_KIB_MAX)

    def curl(self, version, path, *words):
        return Curl(self.gateway, version)(path, *words, user_token=token("alice"), patience=80)

    def test_slow_reader_holds_the_backend_back_and_frees_it_when_it_leaves(self):
        for http2 in (False, True):
            with self.subTest(http2=http2):
                before = self.gateway.memory_kib()
                client = self.client(http2)
                with client.stream("GET", "/endless") as answer:
                    next(answer.iter_raw())
                    self.comes_to_rest()
                    self.assertLess(self.streams.sent, ON_THE_WAY_MAX)
                    self.assertLess(self.gateway.memory_kib() - before, MEMORY_KIB_MAX)
                    gone = self.streams.gone
                client.close()
                self.assertTrue(gone.wait(PATIENCE), "the backend still writes for nobody")

    def comes_to_rest(self):
        """Waits until the backend has not got rid of a byte for a second."""
        seen, since = -1, 0

        def resting():
            nonlocal seen, since
            since = since + 1 if self.streams.sent == seen else 0
            seen = self.streams.sent
            return since > 20

        eventually("the backend is held back", resting)

    def test_client_that_leaves_in_the_middle_frees_the_backend(self):
        connection = http.client.HTTPSConnection("localhost", self.gateway.port, context=self.gateway.tls(), timeout=PATIENCE)
        connection.request("GET", "/endless", headers=self.headers)
        connection.getresponse().read(1000)
        gone = self.streams.gone
        connection.close()
        self.assertTrue(gone.wait(PATIENCE))

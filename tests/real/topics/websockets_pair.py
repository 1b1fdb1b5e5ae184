"""A WebSocket server of the library `websockets` behind the gateway; its client, Node's, and one over HTTP/2 in front."""

# Proves: MSG-3, HDR-1, HDR-8

import json
import os
import pathlib
import subprocess
import threading

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.sync.server import serve

from frame.gateway import PASSWORD, Gateway, token
from frame.http2 import DATA, END_HEADERS, HEADERS, SETTINGS, Frames
from frame.process import PATIENCE, eventually
from frame.runner import TOO_OLD, Topic
from frame.websocket import Client, Loop

# SETTINGS_ENABLE_CONNECT_PROTOCOL with the value 1.
ENABLE_CONNECT = b"\x00\x08\x00\x00\x00\x01"

CASES = pathlib.Path(__file__).with_suffix(".mjs")

ROUTES = """
[[upstream]]
name = "server"
servers = ["http://127.0.0.1:{port}"]
[[route]]
name = "live"
path_prefix = "/live"
upstream = "server"
access = "authenticated"
websocket = true
[[route]]
name = "clerks"
path_prefix = "/live/clerks"
upstream = "server"
access = "authenticated"
require = {{ roles = ["clerk"] }}
websocket = true
[[route]]
name = "plain"
path_prefix = "/plain"
upstream = "server"
access = "authenticated"
"""


class Server:
    """Echoes messages. `who` gives the request's fields, `close N` closes with that code, `ping` awaits a pong."""

    def __init__(self):
        self.opened, self.codes = 0, []
        self.server = serve(self.talk, "127.0.0.1", 0, max_size=None, select_subprotocol=self.chat, open_timeout=PATIENCE, ping_interval=None)
        self.port = self.server.socket.getsockname()[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()

    @staticmethod
    def chat(_, offered):
        return "chat" if "chat" in offered else None

    def talk(self, connection):
        self.opened += 1
        try:
            for message in connection:
                self.answer(connection, message)
        except ConnectionClosed:
            pass
        finally:
            self.codes.append(connection.close_code)

    @staticmethod
    def answer(connection, message):
        if message == "who":
            connection.send(json.dumps([[name.lower(), value] for name, value in connection.request.headers.raw_items()]))
        elif message == "ping":
            connection.send("pong" if connection.ping().wait(PATIENCE) else "no pong")
        elif isinstance(message, str) and message.startswith("close "):
            connection.close(int(message[len("close ") :]), "as you asked")
        else:
            connection.send(message)


class WebSockets(Topic):
    programs = ("node",)

    @classmethod
    def begin(cls):
        cls.server = cls.keep(Server())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(port=cls.server.port), users={"alice": ["clerk"]}))
        cls.loop = cls.keep(Loop())

    def open(self, path="/live", user="alice", **options):
        headers = {"Authorization": f"Bearer {token(user)}"} if user else {}
        headers |= options.pop("headers", {})
        url = f"wss://localhost:{self.gateway.port}{path}"
        try:
            connection = Client(self.loop, url, ssl=self.gateway.tls(), additional_headers=headers, **options)
        except TimeoutError as error:
            # What the gateway says of it tells whose side the answer was lost on.
            log = self.gateway.out.text()[-4000:]
            raise AssertionError(f"no answer to a handshake at {path} within {PATIENCE} s; the gateway's log ends:\n{log}") from error
        self.addCleanup(connection.close)
        return connection

    def refused(self, status, code, **options):
        before = self.server.opened
        with self.assertRaises(InvalidStatus) as refusal:
            self.open(**options)
        response = refusal.exception.response
        self.assertEqual((response.status_code, json.loads(response.body)["code"]), (status, code))
        self.assertEqual(self.server.opened, before)

    def test_without_a_token_it_is_refused(self):
        self.refused(401, "credentials_missing", user=None)

    def test_without_the_role_it_is_refused(self):
        self.refused(403, "role_missing", path="/live/clerks")

    def test_page_of_another_host_is_refused(self):
        self.refused(403, "origin_denied", origin="https://elsewhere.test")
        own = self.open(origin=f"https://localhost:{self.gateway.port}")
        own.send("hello")
        self.assertEqual(own.recv(), "hello")

    def test_other_routes_open_none(self):
        before = self.server.opened
        with self.assertRaises(InvalidStatus):
            self.open("/plain")
        self.assertEqual(self.server.opened, before)

    def test_server_is_told_who_is_calling(self):
        connection = self.open(headers={"X-Forwarded-User": "mallory", "X_Forwarded_User": "mallory"})
        connection.send("who")
        seen = json.loads(connection.recv())
        self.assertEqual([value for name, value in seen if name == "x-forwarded-user"], ["alice"])
        self.assertEqual([value for name, value in seen if name == "authorization"], [])

    def test_messages_come_back_as_they_are(self):
        connection = self.open(subprotocols=["chat"])
        self.assertEqual(connection.subprotocol, "chat")
        for message in ("hello", "", b"", "grüße", bytes(range(256)), b"x" * (5 << 20), "y" * 70000):
            connection.send(message)
            self.assertEqual(connection.recv(), message)

    def test_fragments_stay_one_message(self):
        connection = self.open()
        connection.send(iter(["one ", "two ", "three"]))
        self.assertEqual(connection.recv(), "one two three")

    def test_pings_go_both_ways(self):
        connection = self.open()
        self.assertGreater(connection.ping(b"from the client"), 0)
        connection.send("ping")
        self.assertEqual(connection.recv(), "pong")

    def test_close_codes_of_the_server_arrive(self):
        for code in (1000, 1001, 1008, 1011, 3000, 4321):
            connection = self.open()
            connection.send(f"close {code}")
            with self.assertRaises(ConnectionClosed):
                connection.recv()
            self.assertEqual((connection.close_code, connection.close_reason), (code, "as you asked"))

    def test_close_code_of_the_client_arrives(self):
        connection = self.open()
        connection.close(4999, "enough")
        eventually("the server has heard the code", lambda: 4999 in self.server.codes)

    def test_client_that_vanishes_ends_the_servers_side(self):
        connection = self.open()
        connection.send("hello")
        connection.recv()
        ended = len(self.server.codes)
        connection.vanish()
        eventually("the server's side has ended", lambda: len(self.server.codes) > ended)

    def test_many_at_once(self):
        connections = [self.open(user=f"user-{number}") for number in range(40)]
        for number, connection in enumerate(connections):
            connection.send(f"of {number}")
        for number, connection in reversed(list(enumerate(connections))):
            self.assertEqual(connection.recv(), f"of {number}")

    def test_token_of_a_login_opens_one_and_logout_ends_it(self):
        with httpx.Client(base_url=self.gateway.url, verify=self.gateway.tls(), timeout=PATIENCE) as client:
            login = {"username": "alice", "password": PASSWORD, "delivery": "body"}
            access = {"Authorization": f"Bearer {client.post('/auth/login', json=login).json()['access_token']}"}
            connection = self.open(user=None, headers=access)
            connection.send("hello")
            self.assertEqual(connection.recv(), "hello")
            self.assertEqual(client.post("/auth/logout", headers=access).status_code, 204)
            self.refused(401, "token_invalid", user=None, headers=access)
            self.ended_for_want_of_a_token(connection)

    def test_it_ends_with_its_token(self):
        connection = self.open(user=None, headers={"Authorization": f"Bearer {token('alice', seconds=5)}"})
        connection.send("hello")
        self.assertEqual(connection.recv(), "hello")
        self.ended_for_want_of_a_token(connection)

    def ended_for_want_of_a_token(self, connection):
        with self.assertRaises(ConnectionClosed):
            connection.recv()
        self.assertEqual(connection.close_code, 1008)

    def test_node_talks_to_it(self):
        node = ["node", "--experimental-websocket", "--no-warnings"]
        if subprocess.run([*node, "--eval", ""], capture_output=True, timeout=PATIENCE).returncode != 0:
            self.skipTest(f"{TOO_OLD}this version of Node has no WebSocket")
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(self.gateway.certificate)}
        command = [*node, CASES, self.gateway.url, token("alice")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        expected = {"text": "hello", "bytes": 100000, "code": 4321, "reason": "as you asked", "refused": True}
        self.assertEqual(json.loads(done.stdout), expected)


class OverHttp2(Topic):
    """RFC 8441: the same server, and a stream of HTTP/2 in front."""

    @classmethod
    def begin(cls):
        cls.server = cls.keep(Server())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(port=cls.server.port)))

    def connect(self):
        frames = Frames(self.gateway)
        self.addCleanup(frames.close)
        settings = frames.until(lambda frame: frame[0] == SETTINGS and frame[3])[3]
        self.assertIn(ENABLE_CONNECT, [settings[at : at + 6] for at in range(0, len(settings), 6)])
        return frames

    def ask(self, frames, stream, *fields, path="/live"):
        """Asks for a WebSocket on a stream; gives the status."""
        usual = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        frames.frame(HEADERS, END_HEADERS, stream, frames.block(*usual, *fields, method="CONNECT", path=path))
        _, _, _, block = frames.until(lambda frame: frame[0] == HEADERS and frame[2] == stream)
        return dict(frames.decoder.decode(block))[":status"]

    def test_messages_and_the_close_code(self):
        frames = self.connect()
        caller = ("authorization", f"Bearer {token('alice')}")
        self.assertEqual(self.ask(frames, 1, caller), "200")
        talk = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        talk.send_text(b"hello")
        self.assertEqual(self.exchange(frames, talk), (Opcode.TEXT, b"hello"))
        talk.send_binary(bytes(1000))
        self.assertEqual(self.exchange(frames, talk), (Opcode.BINARY, bytes(1000)))
        talk.send_text(b"close 4321")
        self.assertEqual(self.exchange(frames, talk)[0], Opcode.CLOSE)
        self.assertEqual(talk.close_rcvd.code, 4321)

    def exchange(self, frames, talk):
        """Sends what waits to be sent, and gives the next frame of the server."""
        for octets in talk.data_to_send():
            frames.frame(DATA, 0, 1, octets)
        while True:
            talk.receive_data(frames.until(lambda frame: frame[0] == DATA and frame[2] == 1)[3])
            events = [event for event in talk.events_received() if isinstance(event, Frame)]
            if events:
                return events[0].opcode, bytes(events[0].data)

    def test_refusals_leave_the_connection_usable(self):
        frames, before = self.connect(), self.server.opened
        caller = ("authorization", f"Bearer {token('alice')}")
        self.assertEqual(self.ask(frames, 1), "401")
        self.assertEqual(self.ask(frames, 3, caller, path="/live/clerks"), "403")
        self.assertEqual(self.ask(frames, 5, caller, ("origin", "https://elsewhere.test")), "403")
        self.assertEqual(self.ask(frames, 7, caller, path="/plain"), "405")
        self.assertEqual(self.server.opened, before)
        self.assertEqual(self.ask(frames, 9, caller), "200")

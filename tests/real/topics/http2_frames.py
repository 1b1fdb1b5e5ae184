"""RFC 9113 frame by frame: what a peer must not send, what it may, and what the gateway owes it."""

# Proves: VER-2, MSG-5, MSG-6, MSG-11, CFG-3

import signal
import struct

from frame.echo import TEXT, Echo
from frame.gateway import Gateway, token
from frame.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frames,
    error_of,
    setting,
)
from frame.process import eventually
from frame.runner import Topic

ROUTES = """
[[upstream]]
name = "echo"
servers = ["{url}"]
[[route]]
name = "public"
path_prefix = "/"
upstream = "echo"
access = "public"
[[route]]
name = "private"
path_prefix = "/private"
upstream = "echo"
access = "authenticated"
"""

WHOLE = END_HEADERS | END_STREAM
NUMBER = struct.Struct(">I").pack
LARGEST = 2**31 - 1

# The connection must end for these. A gateway may close without saying why, or say it in other words than the RFC's.
ENDED = ("GOAWAY", "closed")
# These concern one stream; RFC 9113 §5.4.2 lets an endpoint end the connection instead.
STREAM = ("RST_STREAM", "GOAWAY", "closed", "400")


def get(frames, stream=1, **options):
    frames.frame(HEADERS, WHOLE, stream, frames.block(**options))


def post(frames, stream=1, *fields):
    frames.frame(HEADERS, END_HEADERS, stream, frames.block(*fields, method="POST"))


# By section of RFC 9113: what is sent after the first SETTINGS, and how it must end. The library that the gateway stands on
# (h2 0.4.20) takes two offences for none: a first frame that is not SETTINGS (3.4), and trailers with pseudo-fields (8.1), of
# which it keeps nothing.
OFFENCES = {
    "4.2 frame larger than allowed": (lambda f: (post(f), f.frame(DATA, 0, 1, bytes(16385))), STREAM),
    "4.2 headers larger than a frame": (lambda f: f.frame(HEADERS, WHOLE, 1, bytes(16385)), ENDED),
    "4.3 table index that does not exist": (lambda f: f.frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\x0f"), ENDED),
    "4.3 table larger than allowed": (lambda f: f.frame(HEADERS, WHOLE, 1, b"\x3f\xe1\xff\x03" + f.block()), ENDED),
    "4.3 block cut short": (lambda f: f.frame(HEADERS, WHOLE, 1, b"\x00\x7f"), ENDED),
    "5.1 data on an idle stream": (lambda f: f.frame(DATA, END_STREAM, 1, b"x"), ENDED),
    "5.1 reset of an idle stream": (lambda f: f.frame(RST_STREAM, 0, 1, NUMBER(8)), ENDED),
    "5.1 window of an idle stream": (lambda f: f.frame(WINDOW_UPDATE, 0, 1, NUMBER(1)), ENDED),
    "5.1 continuation of an idle stream": (lambda f: f.frame(CONTINUATION, END_HEADERS, 1, f.block()), ENDED),
    "5.1.1 stream with an even number": (lambda f: f.frame(HEADERS, WHOLE, 2, f.block()), ENDED),
    "6.1 data on stream 0": (lambda f: f.frame(DATA, END_STREAM, 0, b"x"), ENDED),
    "6.1 padding longer than the frame": (lambda f: (post(f), f.frame(DATA, PADDED, 1, b"\x08abc")), ENDED),
    "6.2 headers on stream 0": (lambda f: f.frame(HEADERS, WHOLE, 0, f.block()), ENDED),
    "6.2 headers with padding longer than the frame": (lambda f: f.frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + f.block()), ENDED),
    "6.2 other frame within a block": (
        lambda f: (f.frame(HEADERS, END_STREAM, 1, f.block()), f.frame(PING, 0, 0, bytes(8))),
        ENDED,
    ),
    "6.2 other stream within a block": (
        lambda f: (f.frame(HEADERS, END_STREAM, 1, f.block()), f.frame(HEADERS, WHOLE, 3, f.block())),
        ENDED,
    ),
    "6.3 priority of a wrong size": (lambda f: (post(f), f.frame(PRIORITY, 0, 1, bytes(4))), STREAM),
    "6.3 priority on stream 0": (lambda f: f.frame(PRIORITY, 0, 0, bytes(5)), ENDED),
    "6.4 reset on stream 0": (lambda f: f.frame(RST_STREAM, 0, 0, NUMBER(8)), ENDED),
    "6.4 reset of a wrong size": (lambda f: (post(f), f.frame(RST_STREAM, 0, 1, bytes(3))), ENDED),
    "6.5 settings on a stream": (lambda f: f.frame(SETTINGS, 0, 1), ENDED),
    "6.5 acknowledgement with content": (lambda f: f.frame(SETTINGS, ACK, 0, setting(4, 1)), ENDED),
    "6.5 settings of a wrong size": (lambda f: f.frame(SETTINGS, 0, 0, bytes(5)), ENDED),
    "6.5.2 push neither on nor off": (lambda f: f.frame(SETTINGS, 0, 0, setting(2, 2)), ENDED),
    "6.5.2 window too large": (lambda f: f.frame(SETTINGS, 0, 0, setting(4, 2**31)), ENDED),
    "6.5.2 frame size too small": (lambda f: f.frame(SETTINGS, 0, 0, setting(5, 16383)), ENDED),
    "6.5.2 frame size too large": (lambda f: f.frame(SETTINGS, 0, 0, setting(5, 2**24)), ENDED),
    "6.6 promise by a client": (lambda f: (post(f), f.frame(PUSH_PROMISE, END_HEADERS, 1, NUMBER(2) + f.block())), ENDED),
    "6.7 ping on a stream": (lambda f: f.frame(PING, 0, 1, bytes(8)), ENDED),
    "6.7 ping of a wrong size": (lambda f: f.frame(PING, 0, 0, bytes(7)), ENDED),
    "6.8 goaway on a stream": (lambda f: f.frame(GOAWAY, 0, 1, bytes(8)), ENDED),
    "6.9 window of the connection by nothing": (lambda f: f.frame(WINDOW_UPDATE, 0, 0, NUMBER(0)), ENDED),
    "6.9 window of a stream by nothing": (lambda f: (post(f), f.frame(WINDOW_UPDATE, 0, 1, NUMBER(0))), STREAM),
    "6.9 window of a wrong size": (lambda f: f.frame(WINDOW_UPDATE, 0, 0, bytes(3)), ENDED),
    "6.9.1 window of the connection over its limit": (lambda f: f.frame(WINDOW_UPDATE, 0, 0, NUMBER(LARGEST)), ENDED),
    "6.9.1 window of a stream over its limit": (lambda f: (post(f), f.frame(WINDOW_UPDATE, 0, 1, NUMBER(LARGEST))), STREAM),
    "8.1 trailers that do not end the stream": (
        lambda f: (post(f), f.frame(HEADERS, END_HEADERS, 1, f.encoder.encode([("x-late", "1")]))),
        STREAM,
    ),
    "8.1.1 body shorter than said": (
        lambda f: (post(f, 1, ("content-length", "10")), f.frame(DATA, END_STREAM, 1, b"short")),
        STREAM,
    ),
    "8.1.1 body longer than said": (
        lambda f: (post(f, 1, ("content-length", "1")), f.frame(DATA, END_STREAM, 1, b"longer")),
        STREAM,
    ),
    "8.2.1 name in capitals": (lambda f: f.frame(HEADERS, WHOLE, 1, f.block(("X-Upper", "1"))), STREAM),
    "8.2.2 field of a connection": (lambda f: f.frame(HEADERS, WHOLE, 1, f.block(("connection", "close"))), STREAM),
    "8.3 unknown pseudo-field": (lambda f: f.frame(HEADERS, WHOLE, 1, f.block((":unknown", "1"))), STREAM),
    "8.3.1 empty path": (lambda f: f.frame(HEADERS, WHOLE, 1, f.block(path="")), STREAM),
    "8.3.1 path twice": (lambda f: f.frame(HEADERS, WHOLE, 1, f.block((":path", "/two"))), STREAM),
}

# What a peer may send: the request after it is answered with 200.
ALLOWED = {
    "4.1 frame of an unknown kind": lambda f: (f.frame(200, 255, 0, b"anything"), get(f)),
    "4.1 reserved bit of a stream's number": lambda f: f.frame(HEADERS, WHOLE, 1 | 2**31, f.block()),
    "5.3 priority of an idle stream": lambda f: (f.frame(PRIORITY, 0, 7, bytes(5)), get(f)),
    "6.2 block in many pieces": lambda f: in_pieces(f),
    "6.2 padding": lambda f: f.frame(HEADERS, WHOLE | PADDED, 1, b"\x05" + f.block() + bytes(5)),
    "6.5.2 unknown setting": lambda f: (f.frame(SETTINGS, 0, 0, setting(200, 7)), get(f)),
    "6.9 window of a stream that is over": lambda f: (over(f), f.frame(WINDOW_UPDATE, 0, 1, NUMBER(1)), get(f, 3)),
    "5.1 reset of a stream that is over": lambda f: (over(f), f.frame(RST_STREAM, 0, 1, NUMBER(8)), get(f, 3)),
    "8.1 trailers": lambda f: (
        post(f),
        f.frame(DATA, 0, 1, b"body"),
        f.frame(HEADERS, WHOLE, 1, f.encoder.encode([("x-late", "1")])),
    ),
    "8.2.3 cookie in crumbs": lambda f: f.frame(HEADERS, WHOLE, 1, f.block(("cookie", "a=1"), ("cookie", "b=2"))),
}


def in_pieces(frames):
    block = frames.block()
    frames.frame(HEADERS, END_STREAM, 1, block[:1])
    frames.frame(CONTINUATION, 0, 1, block[1:3])
    frames.frame(CONTINUATION, 0, 1, b"")
    frames.frame(CONTINUATION, END_HEADERS, 1, block[3:])


def over(frames):
    get(frames)
    frames.answer()


class Http2Frames(Topic):
    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url)))

    def connect(self, **options):
        frames = Frames(self.gateway, **options)
        self.addCleanup(frames.close)
        return frames

    def test_offences_end_the_stream_or_the_connection(self):
        for name, (send, outcomes) in OFFENCES.items():
            with self.subTest(name):
                frames = self.connect()
                send(frames)
                outcome = frames.outcome()
                self.assertTrue(outcome.startswith(outcomes), outcome)
                self.assertNotEqual(outcome, "GOAWAY NO_ERROR")
                frames.close()
        self.still_answers()

    def test_what_is_allowed_is_taken(self):
        for name, send in ALLOWED.items():
            with self.subTest(name):
                frames = self.connect()
                send(frames)
                self.assertEqual(frames.answer(3 if "over" in name else 1)[0], 200)
                frames.close()

    def still_answers(self):
        frames = self.connect()
        get(frames)
        self.assertEqual(frames.answer()[0], 200)

    def test_bad_preface_is_no_http2(self):
        frames = self.connect(preface=PREFACE.replace(b"SM", b"XX"))
        self.assertIn(frames.outcome(), ("closed", "GOAWAY PROTOCOL_ERROR"))

    def test_settings_and_pings_are_acknowledged(self):
        frames = self.connect()
        frames.until(lambda frame: frame[:2] == (SETTINGS, ACK))
        frames.frame(PING, 0, 0, b"12345678")
        self.assertEqual(frames.until(lambda frame: frame[0] == PING), (PING, ACK, 0, b"12345678"))

    def test_stream_numbers_only_grow(self):
        frames = self.connect()
        get(frames, 5)
        self.assertEqual(frames.answer(5)[0], 200)
        get(frames, 3)
        self.assertTrue(frames.outcome(3).startswith(STREAM))

    def test_nothing_may_follow_the_end_of_a_stream(self):
        for kind in (DATA, HEADERS):
            frames = self.connect()
            get(frames, path="/drip?20")
            frames.frame(kind, WHOLE, 1, frames.block() if kind == HEADERS else b"late")
            outcome = frames.outcome()
            while outcome == "200":  # the answer had begun
                outcome = frames.outcome()
            self.assertTrue(outcome.startswith(STREAM), outcome)

    def test_streams_over_the_limit_are_refused(self):
        frames = self.connect()
        for number in range(101):
            post(frames, 2 * number + 1)
        self.assertIn(frames.outcome(201), ("RST_STREAM REFUSED_STREAM", "GOAWAY PROTOCOL_ERROR"))

    def test_no_data_is_sent_into_a_shut_window(self):
        frames = self.connect(settings=setting(4, 0))
        get(frames, path="/text")
        frames.until(lambda frame: frame[0] == HEADERS)
        frames.frame(PING, 0, 0, bytes(8))
        kind, *_ = frames.until(lambda frame: frame[0] in (DATA, PING))
        self.assertEqual(kind, PING)
        frames.frame(WINDOW_UPDATE, 0, 1, NUMBER(10))
        self.assertEqual(frames.until(lambda frame: frame[0] == DATA)[3], TEXT[:10])
        frames.frame(SETTINGS, 0, 0, setting(4, 5))  # opens streams that are under way, too
        self.assertEqual(frames.until(lambda frame: frame[0] == DATA)[3], TEXT[10:15])

    def test_frames_keep_to_the_size_that_the_client_takes(self):
        frames = self.connect(settings=setting(4, LARGEST))
        get(frames, path="/text")
        sizes = []
        while True:
            kind, flags, _, payload = frames.until(lambda frame: frame[0] == DATA)
            sizes.append(len(payload))
            if flags & END_STREAM:
                break
        self.assertEqual(sum(sizes), len(TEXT))
        self.assertLessEqual(max(sizes), 16384)

    def test_client_that_ignores_the_window_is_ended(self):
        frames = self.connect()
        frames.frame(HEADERS, END_HEADERS, 1, frames.block(path="/private", method="POST"))
        for _ in range(40):  # refused, so nobody reads it and the window stays as it is
            frames.frame(DATA, 0, 1, bytes(16384))
        outcome = frames.outcome()
        self.assertIn(outcome.split()[0], ("401", "RST_STREAM", "GOAWAY", "closed"))
        while outcome == "401":
            outcome = frames.outcome()
        self.assertIn(outcome, ("RST_STREAM NO_ERROR", "RST_STREAM FLOW_CONTROL_ERROR", "GOAWAY FLOW_CONTROL_ERROR", "closed"))
        self.still_answers()

    def test_refused_upload_may_end_in_peace(self):
        frames = self.connect()
        frames.frame(HEADERS, END_HEADERS, 1, frames.block(path="/private", method="POST"))
        self.assertEqual(frames.answer()[0], 401)
        frames.frame(DATA, END_STREAM, 1, b"the rest")
        frames.frame(PING, 0, 0, bytes(8))
        self.assertEqual(frames.until(lambda frame: frame[0] in (RST_STREAM, PING))[0], PING)

    def test_many_resets_end_the_connection(self):
        frames = self.connect()
        for number in range(5000):
            stream = 2 * number + 1
            frames.frame(HEADERS, WHOLE, stream, frames.block())
            frames.frame(RST_STREAM, 0, stream, NUMBER(8))
        outcome = frames.outcome(0)
        self.assertIn(outcome, ("GOAWAY ENHANCE_YOUR_CALM", "closed"))
        self.still_answers()


class Drain(Topic):
    """A gateway that is told to leave."""

    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), server='drain_timeout = "20s"'))

    def test_stream_under_way_ends_whole_and_the_client_is_told(self):
        frames = Frames(self.gateway)
        self.addCleanup(frames.close)
        get(frames, path="/private/drip", token=token("alice"))
        self.assertEqual(frames.answer()[0], 200)
        get(frames, 3, path="/drip?10")
        frames.until(lambda frame: frame[0] == DATA and frame[2] == 3)
        self.gateway.child.send_signal(signal.SIGTERM)
        told, body, ended = [], b"", False
        while not ended:
            kind, flags, stream, payload = frame = frames.read()
            if kind == GOAWAY:
                told.append(error_of(frame))
            elif kind == PING and not flags & ACK:
                frames.frame(PING, ACK, 0, payload)
            elif kind == DATA and stream == 3:
                body += payload
                ended = bool(flags & END_STREAM)
        self.assertIn(b"id: 9\n", body)
        self.assertEqual(set(told), {"NO_ERROR"})
        eventually("the gateway has left", lambda: self.gateway.child.poll() is not None)
        self.assertEqual(self.gateway.child.returncode, 0)

"""An HTTP/2 connection on which a test may write any frame, and reads what comes back."""

import socket
import struct

import hpack

from frame.process import PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8

ERRORS = """NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR
REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED""".split()


class Closed(Exception):
    """The gateway closed the connection."""


class Frames:
    """The connection. Frames are read as (kind, flags, stream, payload)."""

    def __init__(self, gateway, settings=b"", preface=PREFACE):
        raw = socket.create_connection(("127.0.0.1", gateway.port), PATIENCE)
        self.stream = gateway.tls("h2").wrap_socket(raw, server_hostname="localhost")
        self.authority = f"localhost:{gateway.port}"
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.received = b""
        self.raw(preface)
        self.frame(SETTINGS, 0, 0, settings)

    def close(self):
        self.stream.close()

    def raw(self, octets):
        try:
            self.stream.sendall(octets)
        except OSError:  # it may have closed already, which the next reading tells
            pass

    def frame(self, kind, flags, stream, payload=b"", length=None):
        length = len(payload) if length is None else length
        self.raw(struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def block(self, *fields, path="/", method="GET", token=None):
        """The header block of a request, `fields` after the usual ones."""
        usual = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        if token:
            usual.append(("authorization", f"Bearer {token}"))
        return self.encoder.encode([*usual, *fields])

    def read(self):
        """The next frame."""
        header = self.exactly(9)
        length = int.from_bytes(header[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", header[3:])
        return kind, flags, stream & 0x7FFFFFFF, self.exactly(length)

    def exactly(self, count):
        while len(self.received) < count:
            try:
                part = self.stream.recv(65536)
            except ConnectionError as error:
                raise Closed from error
            if not part:
                raise Closed
            self.received += part
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def until(self, wanted):
        """Reads frames until one is `wanted`; gives that."""
        while True:
            frame = self.read()
            if frame[0] == GOAWAY and not wanted(frame):
                raise Closed(f"GOAWAY {error_of(frame)}")
            if wanted(frame):
                return frame

    def answer(self, stream=1):
        """Status and body of the answer on a stream."""
        fields, body = {}, b""
        while True:
            kind, flags, _, payload = self.until(lambda frame: frame[2] == stream and frame[0] in (HEADERS, DATA, RST_STREAM))
            if kind == RST_STREAM:
                raise Closed(f"stream reset: {error_of((kind, flags, stream, payload))}")
            if kind == HEADERS:
                fields.update(self.decoder.decode(payload))
            else:
                body += payload
            if flags & END_STREAM:
                return int(fields[":status"]), body

    def outcome(self, stream=1):
        """How the gateway took offence: `GOAWAY ERROR`, `RST_STREAM ERROR`, `closed`, or the status of an answer."""
        while True:
            try:
                frame = self.read()
            except Closed:
                return "closed"
            kind, _, of, payload = frame
            if kind == GOAWAY:
                return f"GOAWAY {error_of(frame)}"
            if kind == RST_STREAM and of == stream:
                return f"RST_STREAM {error_of(frame)}"
            if kind == HEADERS and of == stream:
                return dict(self.decoder.decode(payload))[":status"]


def error_of(frame):
    code = int.from_bytes(frame[3][4:8] if frame[0] == GOAWAY else frame[3][:4], "big")
    return ERRORS[code] if code < len(ERRORS) else str(code)


def setting(identifier, value):
    return struct.pack(">HI", identifier, value)

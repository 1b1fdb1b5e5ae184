"""As much of HTTP/2 (RFC 9113) as one request on a new connection takes, for connections that are opened to be left idle."""

import socket
import ssl
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A field without indexing and without Huffman codes (RFC 7541 §6.2.2)."""
    return b"\x00" + text(name) + text(value)


def text(value):
    data = value.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, rest = b"\x7f", len(data) - 127
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + data


def connect(port, context):
    """A TLS connection that has agreed on HTTP/2."""
    secure = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
    if secure.selected_alpn_protocol() != "h2":
        secure.close()
        raise ssl.SSLError("the gateway speaks no HTTP/2")
    return secure


def get(connection, port, headers):
    """Sends the first request and gives the body of its answer."""
    fields = {":method": "GET", ":scheme": "https", ":authority": f"localhost:{port}", ":path": "/", **headers}
    block = b"".join(literal(name.lower(), value) for name, value in fields.items())
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    stream, body = connection.makefile("rb"), b""
    while True:
        head = stream.read(9)
        if len(head) < 9:
            raise ConnectionError("the connection ended before its answer")
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        number = int.from_bytes(head[5:], "big")
        payload = stream.read(length)
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        if number == 1 and kind == DATA:
            body += payload
        if number == 1 and kind in (DATA, HEADERS) and flags & END_STREAM:
            return body

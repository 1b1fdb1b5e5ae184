"""A WSGI application that answers with its environment; run as a script, it serves itself with wsgiref."""

import json
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server


def application(environ, start_response):
    length = environ.get("CONTENT_LENGTH") or "0"
    if environ.get("HTTP_TRANSFER_ENCODING") == "chunked" and "wsgi.input_terminated" not in environ:
        body = b""  # wsgiref knows no chunks
    elif environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING"):
        body = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(int(length))
    texts = {name: value for name, value in environ.items() if isinstance(value, str)}
    answer = json.dumps({"environ": texts, "body_bytes": len(body)}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), application, handler_class=Quiet).serve_forever()

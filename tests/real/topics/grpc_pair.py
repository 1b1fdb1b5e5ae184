"""A gRPC server of grpcio behind the gateway, its client in front: four kinds of calls, metadata, deadlines, errors."""

# Proves: HDR-1, HDR-8, MSG-13, UP-4

import os
import threading
from concurrent.futures import ThreadPoolExecutor

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # it tells of every process that we start

import grpc  # noqa: E402

from frame.gateway import Gateway, token
from frame.process import PATIENCE, free_port
from frame.runner import Topic

ROUTES = """
[[upstream]]
name = "server"
servers = ["http://127.0.0.1:{port}"]
{protocol}
[[upstream]]
name = "absent"
servers = ["http://127.0.0.1:{absent}"]
{protocol}
[[route]]
name = "calls"
path_prefix = "/test.Calls"
upstream = "server"
access = "authenticated"
{trailers}
[[route]]
name = "admin"
path_prefix = "/test.Admin"
upstream = "server"
access = "authenticated"
require = {{ roles = ["admin"] }}
[[route]]
name = "absent"
path_prefix = "/test.Absent"
upstream = "absent"
access = "authenticated"
"""


class Server:
    """Messages are plain bytes. `cancelled` is set when a call that waits is given up by its caller."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.metadata, self.calls = {}, 0
        self.server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)])
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
        }
        for service in ("test.Calls", "test.Admin"):
            self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, kinds),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def stop(self):
        self.server.stop(0).wait(PATIENCE)

    def unary(self, request, context):
        self.calls += 1
        self.metadata = list(context.invocation_metadata())
        context.send_initial_metadata([("x-begin", "first"), ("x-bytes-bin", b"\x00\xff")])
        context.set_trailing_metadata([("x-end", "last"), ("x-end-bin", b"\xfe\x01")])
        return request

    @staticmethod
    def count(request, _):
        for number in range(int(request)):
            yield str(number).encode()

    @staticmethod
    def sum(requests, _):
        return str(sum(len(request) for request in requests)).encode()

    @staticmethod
    def talk(requests, _):
        for request in requests:
            yield b"heard " + request

    @staticmethod
    def fail(_, context):
        context.set_trailing_metadata([("x-why", "because")])
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 % größer")

    @staticmethod
    def fail_late(_, context):
        yield b"one"
        context.abort(grpc.StatusCode.DATA_LOSS, "after one")

    def wait(self, request, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(PATIENCE)
        return request


class Grpc:
    """A server, a gateway and a channel through it."""

    @classmethod
    def begin(cls):
        cls.server = cls.keep(Server())
        routes = ROUTES.format(
            port=cls.server.port, absent=free_port(), protocol=cls.protocol, trailers=cls.trailers
        )
        cls.gateway = cls.keep(Gateway(cls.folder, routes))

    def setUp(self):
        credentials = grpc.ssl_channel_credentials(self.gateway.certificate.read_bytes())
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        self.channel = grpc.secure_channel(f"localhost:{self.gateway.port}", credentials, options)
        self.addCleanup(self.channel.close)
        self.caller = [("authorization", f"Bearer {token('alice', roles=['clerk'])}")]

    def unary(self, method="Unary", service="test.Calls"):
        return self.channel.unary_unary(f"/{service}/{method}")

    def fails(self, call, code):
        """Calls, expects this status, gives the error."""
        with self.assertRaises(grpc.RpcError) as failure:
            call()
        self.assertEqual(failure.exception.code(), code, failure.exception)
        return failure.exception


class Refusals(Grpc, Topic):
    """What the gateway itself answers, whatever is behind it."""

    protocol = ""
    trailers = ""

    def test_without_a_token_it_is_unauthenticated(self):
        before = self.server.calls
        self.fails(lambda: self.unary()(b"", timeout=PATIENCE), grpc.StatusCode.UNAUTHENTICATED)
        bad = [("authorization", "Bearer x.y.z")]
        self.fails(lambda: self.unary()(b"", metadata=bad, timeout=PATIENCE), grpc.StatusCode.UNAUTHENTICATED)
        self.assertEqual(self.server.calls, before)

    def test_without_the_role_permission_is_denied(self):
        before = self.server.calls
        call = self.unary(service="test.Admin")
        self.fails(lambda: call(b"", metadata=self.caller, timeout=PATIENCE), grpc.StatusCode.PERMISSION_DENIED)
        self.assertEqual(self.server.calls, before)

    def test_server_that_is_down_is_unavailable(self):
        call = self.unary(service="test.Absent")
        self.fails(lambda: call(b"", metadata=self.caller, timeout=PATIENCE), grpc.StatusCode.UNAVAILABLE)

    def test_service_without_a_route_is_unimplemented(self):
        call = self.unary(service="test.Elsewhere")
        self.fails(lambda: call(b"", metadata=self.caller, timeout=PATIENCE), grpc.StatusCode.UNIMPLEMENTED)


class Calls(Grpc, Topic):
    """Calls that reach the server, over HTTP/2 on both sides."""

    protocol = 'protocol = "h2"'
    trailers = "trailers = true"

    def options(self):
        return {"metadata": self.caller, "timeout": PATIENCE}

    def test_unary_call_with_metadata_both_ways(self):
        forged = [("x-forwarded-user", "root"), ("x-own", "kept"), ("x-own-bin", b"\x01\x02")]
        response, call = self.unary().with_call(b"hello", metadata=self.caller + forged, timeout=PATIENCE)
        self.assertEqual(response, b"hello")
        begun, ended = dict(call.initial_metadata()), dict(call.trailing_metadata())
        self.assertEqual((begun["x-begin"], begun["x-bytes-bin"]), ("first", b"\x00\xff"))
        self.assertEqual((ended["x-end"], ended["x-end-bin"]), ("last", b"\xfe\x01"))
        told = self.server.metadata
        self.assertEqual([value for name, value in told if name == "x-forwarded-user"], ["alice"])
        self.assertEqual(dict(told)["x-own"], "kept")
        self.assertNotIn("authorization", dict(told))

    def test_large_messages(self):
        message = os.urandom(8 << 20)
        self.assertEqual(self.unary()(message, **self.options()), message)

    def test_empty_message(self):
        self.assertEqual(self.unary()(b"", **self.options()), b"")

    def test_server_streams(self):
        numbers = self.channel.unary_stream("/test.Calls/Count")(b"2000", **self.options())
        self.assertEqual([int(number) for number in numbers], list(range(2000)))

    def test_client_streams(self):
        pieces = (bytes(1000) for _ in range(2000))
        total = self.channel.stream_unary("/test.Calls/Sum")(pieces, **self.options())
        self.assertEqual(total, b"2000000")

    def test_both_stream_turn_by_turn(self):
        heard = threading.Semaphore(1)

        def say():
            for number in range(50):
                # The next word only when the last was answered: nothing is kept back on the way.
                self.assertTrue(heard.acquire(timeout=PATIENCE))
                yield str(number).encode()

        for number, answer in enumerate(self.channel.stream_stream("/test.Calls/Talk")(say(), **self.options())):
            self.assertEqual(answer, b"heard %d" % number)
            heard.release()
        self.assertEqual(number, 49)

    def test_error_with_its_message_and_metadata(self):
        error = self.fails(lambda: self.unary("Fail")(b"", **self.options()), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(error.details(), "no such thing: 100 % größer")
        self.assertEqual(dict(error.trailing_metadata())["x-why"], "because")

    def test_error_after_the_first_message(self):
        answers = self.channel.unary_stream("/test.Calls/FailLate")(b"", **self.options())
        self.assertEqual(next(answers), b"one")
        self.fails(lambda: next(answers), grpc.StatusCode.DATA_LOSS)

    def test_unknown_method_is_the_servers_to_answer(self):
        self.fails(lambda: self.unary("Nothing")(b"", **self.options()), grpc.StatusCode.UNIMPLEMENTED)

    def test_deadline_ends_the_call_at_the_server(self):
        self.server.cancelled.clear()
        call = self.unary("Wait")
        self.fails(lambda: call(b"", metadata=self.caller, timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertTrue(self.server.cancelled.wait(PATIENCE))

    def test_call_given_up_ends_at_the_server(self):
        self.server.cancelled.clear()
        future = self.unary("Wait").future(b"", **self.options())
        while not future.running():
            self.assertFalse(future.done(), future)
        threading.Event().wait(0.3)
        future.cancel()
        self.assertTrue(self.server.cancelled.wait(PATIENCE))

    def test_many_calls_at_once_on_one_connection(self):
        call = self.unary()
        messages = [str(number).encode() for number in range(300)]
        futures = [call.future(message, **self.options()) for message in messages]
        self.assertEqual([future.result() for future in futures], messages)

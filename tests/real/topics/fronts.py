"""HAProxy in front, as a load balancer for TCP with the PROXY protocol and as a proxy for HTTP; curl's own PROXY header."""

# Proves: NET-10, HDR-4

from frame.curl import Curl, Failed
from frame.echo import Echo, fields
from frame.gateway import Gateway, token
from frame.process import free_port
from frame.runner import Topic
from frame.servers import Haproxy

ROUTES = """
[[upstream]]
name = "echo"
servers = ["{url}"]
[[route]]
name = "app"
path_prefix = "/"
upstream = "echo"
access = "authenticated"
"""

# Clients connect from another address of the loopback network, so that it can be told from HAProxy's.
CLIENT = "127.0.0.5"


class Front(Topic):
    programs = ("curl", "haproxy")
    server = 'trusted_proxies = ["127.0.0.1"]\ndrain_timeout = "2s"'

    def ask(self, port, *words, client=CLIENT):
        """Asks by way of a front; gives what the backend saw."""
        to = ("--connect-to", f"localhost:{self.gateway.port}:127.0.0.1:{port}", "--interface", client)
        return Curl(self.gateway)("/x", *to, *words, user_token=token("alice"))

    def seen_from(self, reply, *addresses):
        seen = reply.json()
        self.assertEqual(fields(seen, "x-real-ip"), [addresses[0]])
        self.assertEqual(fields(seen, "x-forwarded-for"), [", ".join(addresses)])
        self.assertEqual(self.gateway.record(reply.fields["x-request-id"])["client"], addresses[0])


class LoadBalancerForTcp(Front):
    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        server = f"proxy_protocol = true\n{cls.server}"
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), server=server))
        cls.ports = {"send-proxy": free_port(), "send-proxy-v2": free_port(), "": free_port()}
        sections = "".join(
            f"listen front{port}\n    mode tcp\n    bind 127.0.0.1:{port}\n    server gate 127.0.0.1:{cls.gateway.port} {words}\n"
            for words, port in cls.ports.items()
        )
        cls.keep(Haproxy(cls.folder / "haproxy", sections, cls.ports[""]))

    def test_client_is_who_the_header_names(self):
        forged = ("--header", "X-Forwarded-For: 192.0.2.1", "--header", "X-Real-IP: 192.0.2.1")
        for words in ("send-proxy", "send-proxy-v2"):
            for version in ("--http1.1", "--http2"):
                with self.subTest(words + version):
                    self.seen_from(self.ask(self.ports[words], version, *forged), CLIENT)

    def test_curl_may_name_itself_from_a_trusted_address(self):
        # The header names curl's own address and port, which is the trusted one here.
        reply = self.ask(self.gateway.port, "--haproxy-protocol", client="127.0.0.1")
        self.seen_from(reply, "127.0.0.1")

    def test_without_the_header_there_is_no_connection(self):
        before = len(self.echo.seen)
        with self.assertRaises(Failed):
            self.ask(self.ports[""])
        with self.assertRaises(Failed):
            self.ask(self.gateway.port, client="127.0.0.1")
        self.assertEqual(len(self.echo.seen), before)

    def test_header_from_an_address_that_is_not_trusted_ends_the_connection(self):
        before = len(self.echo.seen)
        with self.assertRaises(Failed):
            self.ask(self.gateway.port, "--haproxy-protocol")
        self.assertEqual(len(self.echo.seen), before)


class ProxyForHttp(Front):
    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), server=cls.server))
        cls.port = free_port()
        tls = f"ssl verify required ca-file {cls.gateway.certificate} verifyhost localhost sni str(localhost) alpn http/1.1"
        section = (
            f"listen front\n    mode http\n    bind 127.0.0.1:{cls.port}\n    option forwardfor\n"
            f"    server gate 127.0.0.1:{cls.gateway.port} {tls}\n"
        )
        cls.keep(Haproxy(cls.folder / "haproxy", section, cls.port))

    def ask(self, *words):
        to = ("--connect-to", f"localhost:{self.gateway.port}:127.0.0.1:{self.port}", "--interface", CLIENT)
        return Curl(self.gateway, scheme="http")("/x", *to, *words, user_token=token("alice"))

    def test_client_is_the_one_that_the_proxy_saw(self):
        self.seen_from(self.ask(), CLIENT, "127.0.0.1")

    def test_what_the_client_says_of_itself_stands_left_of_it(self):
        reply = self.ask("--header", "X-Forwarded-For: 192.0.2.1, 198.51.100.7")
        self.assertEqual(fields(reply.json(), "x-real-ip"), [CLIENT])
        self.assertEqual(self.gateway.record(reply.fields["x-request-id"])["client"], CLIENT)

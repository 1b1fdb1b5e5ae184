"""sslscan looks at every protocol and cipher that the gateway accepts."""

# Proves: NET-5

import subprocess
import xml.etree.ElementTree

from frame.gateway import Gateway
from frame.runner import Topic

ROUTES = """
[[upstream]]
name = "none"
servers = ["http://127.0.0.1:1"]
[[route]]
name = "app"
path_prefix = "/"
upstream = "none"
access = "authenticated"
"""


class TlsPolicy(Topic):
    programs = ("sslscan",)

    @classmethod
    def begin(cls):
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES))
        command = ["sslscan", "--xml=-", "--no-colour", "--connect-timeout=10", f"localhost:{cls.gateway.port}"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        cls.scan = xml.etree.ElementTree.fromstring(done.stdout).find("ssltest")

    def test_protocols(self):
        enabled = {f"{found.get('type')} {found.get('version')}" for found in self.scan.iter("protocol") if found.get("enabled") == "1"}
        self.assertEqual(enabled, {"tls 1.2", "tls 1.3"})

    def test_ciphers_are_authenticated_and_forward_secret(self):
        ciphers = {found.get("cipher") for found in self.scan.iter("cipher")}
        self.assertGreaterEqual(len(ciphers), 4)
        for cipher in ciphers:
            with self.subTest(cipher):
                self.assertRegex(cipher, r"^(TLS_(AES|CHACHA20)_|ECDHE-)")
                self.assertRegex(cipher, "GCM|POLY1305")

    def test_old_weaknesses(self):
        for found in self.scan.iter("compression"):  # told only where sslscan's own library could speak it
            self.assertEqual(found.get("supported"), "0")
        self.assertEqual({found.get("vulnerable") for found in self.scan.iter("heartbleed")}, {"0"})
        renegotiation = self.scan.find("renegotiation")
        self.assertEqual((renegotiation.get("supported"), renegotiation.get("secure")), ("0", "0"), "there is none at all")

"""The gateway under test: its configuration, its accounts, its output."""

# Proves: LOG-1

import base64
import hashlib
import hmac
import json
import os
import ssl
import subprocess
import time

from frame.process import PATIENCE, Process
from frame.runner import Settings

SECRET = b"a secret of tests, known to whoever reads them"
ISSUER = "https://issuer.test"
AUDIENCE = "tests"
PASSWORD = "correct horse battery staple"

HEAD = f"""
version = 1
[server]
listen = ["127.0.0.1:{{port}}"]
admin_listen = "127.0.0.1:0"
public_url = "https://localhost:{{public_port}}"
{{server}}
[tls]
certificates = [{{{{ cert = "certs/dev.crt", key = "certs/dev.key" }}}}]
development = true
[[issuer]]
name = "tests"
issuer = "{ISSUER}"
audience = ["{AUDIENCE}"]
algorithms = ["HS256"]
secret_file = "config/secret"
leeway = "0s"
[log]
level = "trace"
[accounts]
store = "sqlite:data/portcullis.db"
{{accounts}}
[rate_limit]
per_ip = {{{{ rate = "{{rate}}" }}}}
"""


class Gateway(Process):
    """A running gateway on free ports, with a development certificate, accounts and an issuer `tests` (see `token`).

    `routes` is TOML: upstreams, routes and whatever else. `users` maps names to lists of roles; they share a password.
    With a `port` the gateway's own tokens name it as their issuer.
    """

    def __init__(self, folder, routes, users=(), server='drain_timeout = "2s"', accounts="", rate="100000/s", port=0):
        self.folder = folder / "gateway"
        for name in ("config", "data", "certs"):
            (self.folder / name).mkdir(parents=True)
        ports = {"port": port, "public_port": port or 8443}
        head = HEAD.format(server=server, accounts=accounts, rate=rate, **ports)
        (self.folder / "config" / "gateway.toml").write_text(head + routes)
        secret = self.folder / "config" / "secret"
        secret.write_bytes(SECRET)
        secret.chmod(0o600)
        self.certificate = self.folder / "certs" / "dev.crt"
        for name, roles in dict(users).items():
            self.add_user(name, roles)
        super().__init__([Settings.binary, "run"], cwd=self.folder)
        self.port = self.err.find("the TLS listener", listening("tls"))
        self.admin_port = self.err.find("the admin listener", listening("admin"))
        self.url = f"https://localhost:{self.port}"

    def stop(self):
        """Stops it, and looks through what it wrote: no panic, no credential (LOG-1)."""
        super().stop()
        written = self.err.text() + self.out.text()
        for unwanted in ("panicked", PASSWORD, "eyJ"):  # the last is how every token begins
            if unwanted in written:
                line = next(line for line in written.splitlines() if unwanted in line)
                raise AssertionError(f"the gateway wrote {unwanted!r}: {line}")

    def command(self, *words, line=""):
        """Runs another command of the gateway in the same folder; gives what it printed."""
        done = subprocess.run(
            [Settings.binary, *words], cwd=self.folder, input=line, capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode != 0:
            raise AssertionError(f"portcullis {' '.join(words)}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def add_user(self, name, roles=()):
        words = [word for role in roles for word in ("--role", role)]
        self.command("user", "add", name, "--email", f"{name}@example.com", *words, line=f"{PASSWORD}\n")

    def tls(self, *protocols):
        """A client's TLS settings: the gateway's certificate is the only one believed."""
        context = ssl.create_default_context(cafile=self.certificate)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def record(self, request_id):
        """Waits for the access-log line of a request."""

        def ours(line):
            record = json.loads(line)
            return record if record.get("request_id") == request_id else None

        return self.out.find(f"the record of {request_id}", ours)

    def memory_kib(self, field="VmRSS"):
        """Resident memory now, or `VmHWM` for its highest mark."""
        with open(f"/proc/{self.child.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))


def listening(listener):
    """Reads the port of a listener out of an event."""

    def port(line):
        fields = json.loads(line).get("fields", {}) if line.startswith("{") else {}
        if fields.get("message") == "listening" and fields.get("listener") == listener:
            return int(fields["address"].rpartition(":")[2])
        return None

    return port


def token(user, seconds=600, **claims):
    """A token of the issuer `tests` for a user, with whatever claims."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + seconds, **claims}
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    return f"{signed}.{encoded(hmac.digest(SECRET, signed.encode(), hashlib.sha256))}"


def bearer(user, **claims):
    """The header field for such a token."""
    return f"Bearer {token(user, **claims)}"


def part(value):
    return encoded(json.dumps(value).encode())


def encoded(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

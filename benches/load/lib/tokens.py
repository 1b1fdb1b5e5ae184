"""Keys, a certificate and tokens, made with the standard library's hmac and the `openssl` command."""

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

AUDIENCE = "bench"
ALGORITHMS = ("HS256", "RS256", "ES256")
# Bytes of each of the two integers of an ECDSA signature over P-256.
P256_BYTES = 32


def issuer(alg):
    """The `iss` of tokens of one algorithm: every algorithm has its own issuer, so that no gateway has to guess."""
    return f"https://{alg.lower()}.bench.test"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, check=True, capture_output=True).stdout


class Keys:
    """Signing keys and the server certificate, as files in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.secret = secrets.token_hex(32)
        self.secret_file = folder / "hs256.secret"
        self.secret_file.touch(mode=0o600)
        self.secret_file.write_text(self.secret)
        self.private = {"RS256": folder / "rs256.key", "ES256": folder / "es256.key"}
        self.public = {alg: path.with_suffix(".pub") for alg, path in self.private.items()}
        curve = ("-pkeyopt", "ec_paramgen_curve:P-256")
        self._generate("RS256", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
        self._generate("ES256", "EC", *curve)
        self.cert, self.cert_key = folder / "tls.crt", folder / "tls.key"
        self.cert_key.touch(mode=0o600)
        openssl("req", "-x509", "-newkey", "ec", *curve, "-nodes", "-days", "2", "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
                "-keyout", str(self.cert_key), "-out", str(self.cert))

    def _generate(self, alg, kind, *options):
        key = self.private[alg]
        key.touch(mode=0o600)
        openssl("genpkey", "-algorithm", kind, *options, "-out", str(key))
        openssl("pkey", "-in", str(key), "-pubout", "-out", str(self.public[alg]))

    def sign(self, alg, data):
        if alg == "HS256":
            return hmac.new(self.secret.encode(), data, hashlib.sha256).digest()
        signature = openssl("dgst", "-sha256", "-sign", str(self.private[alg]), data=data)
        return signature if alg == "RS256" else raw_ecdsa(signature)

    def token(self, alg, user="user-0", **changes):
        """A signed token. A change to `None` leaves the claim out."""
        now = int(time.time())
        claims = {
            "iss": issuer(alg), "aud": AUDIENCE, "sub": user, "iat": now, "nbf": now, "exp": now + 6 * 3600,
            "jti": secrets.token_hex(8), "email": f"{user}@example.com", "preferred_username": user,
            "roles": ["user", "reader"], "scope": "orders:read orders:write",
        }
        claims.update(changes)
        claims = {name: value for name, value in claims.items() if value is not None}
        parts = ({"alg": alg, "typ": "JWT"}, claims)
        text = ".".join(b64(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
        return f"{text}.{b64(self.sign(alg, text.encode()))}"

    def tokens(self, alg, count):
        """Tokens of as many users. Each RS256 or ES256 signature is one run of `openssl`, so they are made side by side."""
        users = [f"user-{number}" for number in range(count)]
        if alg == "HS256":
            return [self.token(alg, user) for user in users]
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda user: self.token(alg, user), users))


def badly_signed(token):
    """The same token with a well-formed signature of the right length that does not verify."""
    head, signature = token.rsplit(".", 1)
    data = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    data[len(data) // 2] ^= 1
    return f"{head}.{b64(bytes(data))}"


def raw_ecdsa(der):
    """Turns `SEQUENCE { INTEGER r, INTEGER s }` into r || s, the form of JWS (RFC 7518 §3.4)."""
    if der[0] != 0x30 or der[1] != len(der) - 2:
        raise ValueError("not a DER signature")
    out, at = b"", 2
    for _ in range(2):
        if der[at] != 0x02:
            raise ValueError("not a DER integer")
        length = der[at + 1]
        out += der[at + 2:at + 2 + length].lstrip(b"\0").rjust(P256_BYTES, b"\0")
        at += 2 + length
    return out

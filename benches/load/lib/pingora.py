"""An application of Pingora with a cache of verified tokens: `pingora/`."""

import json

from . import tokens
from .built import Built
from .peers import RATE


class Pingora(Built):
    name = "pingora"
    label = "Pingora, token cache"
    port_names = ("tls",)
    package, binary_name = "pingora", "pingora-gate"

    def version(self):
        return f"{self.locked('pingora')} (rustls {self.locked('rustls')})"

    def command(self):
        program = self.program()
        settings = self.folder / "settings.json"
        settings.write_text(json.dumps({
            "listen": f"127.0.0.1:{self.ports['tls']}",
            "cert": str(self.keys.cert),
            "cert_key": str(self.keys.cert_key),
            "upstream": f"127.0.0.1:{self.upstream.ports['http']}",
            "threads": self.options.workers,
            "audience": tokens.AUDIENCE,
            "role": "user",
            "rate": RATE,
            "issuers": {alg: self.issuer(alg) for alg in tokens.ALGORITHMS},
        }, indent=1))
        return [program, settings]

    def issuer(self, alg):
        key_file = self.keys.secret_file if alg == "HS256" else self.keys.public[alg]
        return {"issuer": tokens.issuer(alg), "key_file": str(key_file)}

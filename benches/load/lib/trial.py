"""The least that a proxy of Portcullis' shape costs: `trial/`. It is no gateway: it checks nothing and bounds nothing."""

from .built import Built
from .peers import Unavailable


class Trial(Built):
    name = "trial"
    label = "bare trial, no token check"
    port_names = ("tls",)
    authenticates = False
    package, binary_name = "trial", "trial"

    def version(self):
        return f"of hyper {self.locked('hyper')}, rustls {self.locked('rustls')}, tokio {self.locked('tokio')}"

    def command(self):
        if self.options.workers != 1:
            raise Unavailable("it has one thread")
        listen, upstream = f"127.0.0.1:{self.ports['tls']}", f"127.0.0.1:{self.upstream.ports['http']}"
        return [self.program(), listen, self.keys.cert, self.keys.cert_key, upstream]

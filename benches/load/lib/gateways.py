"""Every gateway that can be measured, by name."""

from .envoy import Envoy
from .peers import HaProxy, HaProxyLean, Nginx, NginxLua, Portcullis, PortcullisLog
from .pingora import Pingora
from .trial import Trial

GATEWAYS = {peer.name: peer for peer in (Portcullis, PortcullisLog, Nginx, NginxLua, HaProxy, HaProxyLean, Envoy, Pingora, Trial)}


def beside(label, path):
    """Another build of Portcullis, to be measured in the same rounds as the first."""
    return type("Beside", (Portcullis,), {"name": label, "label": f"Portcullis, {label}", "binary": lambda self: path})

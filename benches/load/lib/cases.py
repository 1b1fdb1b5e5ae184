"""The cases: which load, on which gateways, and what every answer must be."""

import time

from . import accounting
from .load import BadRun
from .tokens import badly_signed

ALL = ("portcullis", "portcullis-log", "nginx", "nginx-lua", "haproxy", "haproxy-lean", "envoy", "pingora", "trial")
USUAL = ("portcullis", "nginx", "nginx-lua", "haproxy", "envoy", "pingora")
# Where what is measured is no token: the floor of a proxy of our shape, too.
WITH_TRIAL = (*USUAL, "trial")
CHECKING = ("portcullis", "nginx-lua", "haproxy", "envoy", "pingora")


class Case:
    """One row group of the table. `refusal` means that every answer must be a refusal, else every one a success. A title speaks of
    the 64 connections that there are where nothing else is asked for."""

    def __init__(self, name, title, gateways, alg="HS256", path="/", refusal=False, default=True):
        self.name, self.title, self.gateways = name, title, gateways
        self.alg, self.path, self.refusal, self.default = alg, path, refusal, default

    def headers(self, bench):
        token = bench.token(self.alg)
        return {"Authorization": f"Bearer {badly_signed(token) if self.refusal else token}"}

    def drive(self, bench, peer, seconds):
        return bench.load.wrk(peer.url(self.alg, self.path), seconds, bench.options.connections, self.headers(bench))

    def warm_up_due(self, first):
        return first


class Public(Case):
    def headers(self, bench):
        return {}


class Connect(Case):
    def headers(self, bench):
        return {**super().headers(bench), "Connection": "close"}


class Users(Case):
    """Every request bears the token of the next user. Warmed up in each round, for caches forget within a minute."""

    def drive(self, bench, peer, seconds):
        return bench.load.wrk(peer.url(self.alg, self.path), seconds, bench.options.connections, {}, users=bench.users_file(self.alg))

    def warm_up_due(self, first):
        return True


class Http2(Case):
    def drive(self, bench, peer, seconds):
        return bench.load.h2load(peer.url(self.alg, self.path), seconds, self.headers(bench), connections=16, streams=32)


class Steady(Case):
    def drive(self, bench, peer, seconds):
        url = peer.url(self.alg, self.path)
        return bench.load.steady(url, seconds, self.headers(bench), connections=bench.options.connections, rate=2000)


class Handshake(Case):
    """Few enough connections a second that neither side is busy: what counts is the CPU time of one."""

    def drive(self, bench, peer, seconds):
        return bench.load.handshakes(peer.url(self.alg, self.path), seconds, self.headers(bench), rate=400)


CASES = {case.name: case for case in (
    Case("hs256", "HS256, HTTP/1.1 keep-alive, 64 connections", ALL),
    Public("public", "Public route, no token, HTTP/1.1 keep-alive, 64 connections", WITH_TRIAL, path="/public/x"),
    Case("rs256", "RS256, token seen before, 64 connections", USUAL, alg="RS256"),
    Case("es256", "ES256, token seen before, 64 connections", USUAL, alg="ES256"),
    Users("users", "HS256, many users in turn, 64 connections", USUAL),
    Users("users-rs256", "RS256, many users in turn, 64 connections", USUAL, alg="RS256", default=False),
    Http2("h2", "HS256, HTTP/2, 16 connections of 32 streams", WITH_TRIAL),
    Case("blob", "HS256, 100 KB answers, 64 connections", WITH_TRIAL, path="/blob"),
    Connect("connect", "HS256, a new connection for each request, TLS session resumed", WITH_TRIAL),
    Handshake("handshake", "HS256, a new connection for each request, full TLS handshake, 400 a second", WITH_TRIAL, default=False),
    Steady("steady", "HS256, 2 000 requests a second, HTTP/1.1 keep-alive, 64 connections", WITH_TRIAL, default=False),
    Case("refused", "Refused: HS256 with a bad signature", CHECKING, refusal=True),
    Case("refused-rs256", "Refused: RS256 with a bad signature", CHECKING, alg="RS256", refusal=True, default=False),
)}


def measure(bench, case, peer, seconds):
    """One timed run: what the load generator saw, and what the gateway's processes spent on it."""
    peer.before_run()
    clock, machine = time.monotonic(), accounting.machine_busy_seconds()
    mine = peer.cpu_seconds()
    known = mine + bench.upstream.cpu_seconds() + accounting.child_seconds()
    seen = case.drive(bench, peer, seconds)
    spent = peer.cpu_seconds()
    elapsed = time.monotonic() - clock
    known = spent + bench.upstream.cpu_seconds() + accounting.child_seconds() - known
    foreign = max(0.0, accounting.machine_busy_seconds() - machine - known)
    if seen["requests"] == 0:
        raise BadRun(f"{peer.name} answered nothing")
    peer.after_run(seen)
    wrong = seen["requests"] - seen["not_2xx"] if case.refusal else seen["not_2xx"]
    return {**seen, "wrong_status": wrong, "cpu_seconds": spent - mine, "seconds": elapsed,
            "cpu_us": (spent - mine) * 1e6 / seen["requests"], "foreign": foreign / elapsed}


def faulty(run):
    return run["errors"] > 0 or run["wrong_status"] > 0

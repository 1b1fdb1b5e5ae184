"""Figures that are one number for each gateway and no row of a load table; none is taken unless asked for."""

import http.client
import re
import ssl
import subprocess
import time

from . import accounting, addresses, http2, limited
from .cases import CHECKING, WITH_TRIAL
from .load import BadRun, execute, read_wrk
from .peers import Portcullis
from .tokens import badly_signed
from .variant import Budgeted

IDLE_CONNECTIONS = 900
# Gateways may take a while before they call a connection idle.
IDLE_SECONDS = 6
GOOD_CONNECTIONS, BAD_CONNECTIONS = 8, 64


class Figure:
    """`take` gives one number, or several by name."""

    def __init__(self, name, title, gateways, take):
        self.name, self.title, self.gateways, self.take = name, title, gateways, take


def headers(token):
    return {"Authorization": f"Bearer {token}"}


def rate_kept(bench, peer, seconds):
    """Per cent of the good clients' rate that is left while others send RS256 tokens with bad signatures. Portcullis has its budget of them."""
    if isinstance(peer, Portcullis):
        with Budgeted(peer).running() as gateway:
            return rate_beside(bench, gateway, seconds)
    return rate_beside(bench, peer, seconds)


def rate_beside(bench, peer, seconds):
    url, token = peer.url("RS256", "/"), bench.token("RS256")
    good = bench.load.wrk_command(url, seconds, GOOD_CONNECTIONS, headers(token))
    alone = read_wrk(execute(good, seconds))
    bad = bench.load.wrk_command(url, seconds + 2, BAD_CONNECTIONS, headers(badly_signed(token)))
    flood = subprocess.Popen(bad, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        beside = read_wrk(execute(good, seconds))
    finally:
        flood.terminate()
        flood.wait()
    for run in (alone, beside):
        if run["errors"] + run["not_2xx"]:
            raise BadRun(f"good clients had {run['errors']} errors and {run['not_2xx']} refusals")
    return 100 * beside["rps"] / alone["rps"]


def system_calls(bench, peer, seconds):
    """System calls of the gateway's processes over the requests of the HS256 case, counted by `perf`."""
    counting = subprocess.Popen(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p",
                                 ",".join(map(str, peer.pids)), "--", "sleep", str(seconds + 2)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        seen = bench.load.wrk(peer.url("HS256", "/"), seconds, 64, headers(bench.token("HS256")))
    finally:
        text = counting.communicate()[1]
    count = re.search(r"^(\d+),", text, re.M)
    if not count:
        raise BadRun(f"perf gave no count (it needs the right to trace): {text.strip()[-200:]}")
    return int(count.group(1)) / seen["requests"]


def idle_connection_kib(bench, peer, open_connection):
    """Resident memory that an open, idle TLS connection adds, some seconds after one request on it. The gateway is started afresh, for
    one that has served much keeps memory that idle connections can use."""
    peer.stop()
    peer.start()
    context = ssl.create_default_context(cafile=str(bench.keys.cert))
    warm = [open_connection(bench, peer, context) for _ in range(50)]
    for connection in warm:
        connection.close()
    time.sleep(0.2)
    before = accounting.resident_kib(peer.pids)
    connections = [open_connection(bench, peer, context) for _ in range(IDLE_CONNECTIONS)]
    time.sleep(IDLE_SECONDS)
    after = accounting.resident_kib(peer.pids)
    for connection in connections:
        connection.close()
    return (after - before) / IDLE_CONNECTIONS


def open_http1(bench, peer, context):
    connection = http.client.HTTPSConnection("127.0.0.1", peer.port("HS256"), timeout=10, context=context)
    connection.request("GET", "/", headers=headers(bench.token("HS256")))
    if connection.getresponse().read() != b'{"ok":true}':
        raise BadRun(f"{peer.name}: a wrong answer")
    return connection


def open_http2(bench, peer, context):
    context.set_alpn_protocols(["h2"])
    port = peer.port("HS256")
    connection = http2.connect(port, context)
    if http2.get(connection, port, headers(bench.token("HS256"))) != b'{"ok":true}':
        raise BadRun(f"{peer.name}: a wrong answer")
    return connection


FIGURES = {figure.name: figure for figure in (
    Figure("kept", "Rate of 8 good connections beside 64 that send bad RS256 tokens, % of their rate alone", CHECKING, rate_kept),
    Figure("syscalls", "System calls a request, HS256 keep-alive", WITH_TRIAL, system_calls),
    Figure("idle", "Resident KiB of an idle TLS keep-alive connection", WITH_TRIAL,
           lambda bench, peer, _seconds: idle_connection_kib(bench, peer, open_http1)),
    Figure("idle-h2", "Resident KiB of an idle HTTP/2 connection", WITH_TRIAL,
           lambda bench, peer, _seconds: idle_connection_kib(bench, peer, open_http2)),
    Figure("limited", "Requests beyond the limit of their client, and logins with the right password", ("portcullis",), limited.take),
    Figure("addresses", "A million clients, each with a budget of its own, public route, 64 connections", ("portcullis",), addresses.take),
)}

"""What a request beyond the limit of its client costs, what others feel of a flood of them, and what a login costs beside it."""

import http.client
import json
import os
import secrets
import ssl
import subprocess
import time
from contextlib import contextmanager

from .load import BadRun, execute, read_refusals, read_wrk
from .variant import Variant

# Requests a second of one client that are let through: all of the good one's, and next to none of the flood's.
RATE = 250
GOOD_CONNECTIONS, GOOD_RATE = 8, 200
FLOOD_CONNECTIONS, FLOOD_RATE = 64, 50_000
# A percentile needs answers: a hundredth of so many is thirty.
GOOD_SECONDS = 15
LOGINS = 20
PATH = "/public/x"


class Limited(Variant):
    """With a limit that one client reaches, accounts, and two addresses, so that there are two clients: the flood comes over IPv4, the
    good one over IPv6."""

    name = "limited"
    rate, burst = f"{RATE}/s", RATE

    def __init__(self, peer):
        super().__init__(peer)
        self.password = secrets.token_urlsafe(24)

    def listen(self):
        return [*super().listen(), f"[::1]:{self.ports['tls']}"]

    def accounts(self):
        # Everything that makes a password expensive is as it comes; only the number of attempts is out of the way.
        return f"""enabled = true
store = "sqlite:{self.folder}/accounts.db"
login_limit = {{ per_ip = "1000/1m", per_account = "1000/1m", failures = "100/1d" }}"""

    def start(self):
        super().start()
        add = [self.binary(), "user", "add", "alice", "--email", "alice@example.com", "--config", self.folder / "config" / "gateway.toml"]
        done = subprocess.run(add, input=f"{self.password}\n", capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise BadRun(f"no account could be made: {done.stderr.strip()[-300:]}")

    def login(self, context):
        connection = http.client.HTTPSConnection("127.0.0.1", self.ports["tls"], timeout=30, context=context)
        try:
            body = json.dumps({"username": "alice", "password": self.password, "delivery": "body"})
            connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise BadRun(f"a login was answered {answer.status}: {text[:200]!r}")
        finally:
            connection.close()


def take(bench, peer, seconds):
    """One row: `bench` has the load generators, `peer` the build of Portcullis."""
    with Limited(peer).running() as gateway:
        refusal, rate = refusals(bench, gateway, seconds)
        login = logins(bench, gateway)
        alone = good(bench, gateway)
        with flood(bench, gateway, FLOOD_RATE) as sent:
            beside = good(bench, gateway)
        with flood(bench, gateway, None):
            flooded = good(bench, gateway)
    return {
        "429/s of one core": rate,
        "CPU µs of a 429": refusal,
        "CPU ms of a login": login * 1000,
        "a 429, % of a login": refusal / (login * 1e6) * 100,
        "p99 ms of good clients alone": alone,
        "429/s beside them": sent["refused"],
        "p99 ms beside these": beside,
        "p99 ms beside all that it can refuse": flooded,
    }


def refusals(bench, gateway, seconds):
    """CPU microseconds of an answer, and answers a second. One in some hundreds of them is no refusal, for the limit lets it through."""
    command = bench.load.wrk_command(gateway.url("HS256", PATH), seconds, FLOOD_CONNECTIONS, {})
    execute(command, seconds)
    before = gateway.cpu_seconds()
    seen = read_wrk(execute(command, seconds))
    spent = gateway.cpu_seconds() - before
    if seen["errors"] or seen["not_2xx"] < 0.9 * seen["requests"]:
        raise BadRun(f"{seen['not_2xx']} refusals and {seen['errors']} errors in {seen['requests']} requests of a flood")
    return spent * 1e6 / seen["requests"], seen["not_2xx"] / seen["requests"] * seen["rps"]


def logins(bench, gateway):
    """CPU seconds of a login with the right password, its TLS handshake included."""
    context = ssl.create_default_context(cafile=str(bench.keys.cert))
    # The flood has used up what this client may send; and the first hash takes its memory from the system.
    time.sleep(1)
    gateway.login(context)
    before = gateway.cpu_seconds()
    for _ in range(LOGINS):
        gateway.login(context)
    return (gateway.cpu_seconds() - before) / LOGINS


def good(bench, gateway):
    """The 99th percentile, in milliseconds, of a client that sends at a steady rate that it may send at. Where that is allowed, client
    and upstream go before the flood's sender on the core that they share with it, so that what they wait for is the gateway."""
    url = f"https://[::1]:{gateway.ports['tls']}{PATH}"
    # h2load would write an IPv6 address into `Host` without its brackets.
    host = {":authority": f"localhost:{gateway.ports['tls']}"}
    with first(gateway.upstream.pids) as rank:
        seen = bench.load.ranked(rank).steady(url, GOOD_SECONDS, host, connections=GOOD_CONNECTIONS, rate=GOOD_RATE)
    if seen["errors"] or seen["not_2xx"]:
        raise BadRun(f"good clients had {seen['errors']} errors and {seen['not_2xx']} refusals")
    return seen["p99_us"] / 1000


@contextmanager
def first(pids):
    """Has these processes run before all others while the block runs. Gives the beginning of a command whose process shall do so too; an
    empty one where the system does not allow it."""
    try:
        for pid in pids:
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield []
        return
    try:
        yield ["chrt", "--fifo", "1"]
    finally:
        for pid in pids:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def flood(bench, gateway, rate):
    """Requests beyond the limit while the block runs, so many a second, or as many as are answered. They are sent with the lowest priority
    on the core of the load. Gives how many were refused a second."""
    url, length = gateway.url("HS256", PATH), GOOD_SECONDS + 1
    if rate:
        pace = f"--rps={rate / FLOOD_CONNECTIONS}"
        command = bench.load.pinned("h2load", "--h1", "-t1", f"-c{FLOOD_CONNECTIONS}", pace, f"-D{length}", url)
    else:
        command = bench.load.wrk_command(url, length, FLOOD_CONNECTIONS, {})
    flooding = subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    sent = {}
    try:
        time.sleep(0.5)
        yield sent
        out = flooding.communicate(timeout=length + 30)[0]
    finally:
        flooding.kill()
        flooding.wait()
    if rate:
        sent["refused"] = read_refusals(out)

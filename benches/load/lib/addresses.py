"""What a request costs while the limits know a million clients."""

import math

from . import accounting
from .load import BadRun, execute, read_wrk
from .variant import Variant

ADDRESSES = 1_000_000
CONNECTIONS = 64
FILL_SECONDS_MAX = 90
PATH = "/public/x"


class Addressed(Variant):
    """Behind a proxy that names clients. A client who has sent one request is remembered for a minute at least, and may send a million."""

    name = "addressed"
    rate, burst = "1/1m", 1_000_000
    trusted_proxies = ("127.0.0.1",)


def take(bench, peer, seconds):
    with Addressed(peer).running() as gateway:
        run(bench, gateway, 1, 1)
        alone, rate = run(bench, gateway, seconds, 1)
        before = accounting.resident_kib(gateway.pids)
        # One run, for the generator begins with the first address each time. It is slower with addresses than without.
        length = min(FILL_SECONDS_MAX, math.ceil(1.5 * ADDRESSES / rate) + 1)
        seen = execute_addressed(bench, gateway, length, ADDRESSES)
        if seen["requests"] < ADDRESSES:
            raise BadRun(f"the generator named {seen['requests']} of {ADDRESSES} clients in {length} s")
        memory = accounting.resident_kib(gateway.pids) - before
        many, _ = run(bench, gateway, seconds, ADDRESSES)
        among, _ = run(bench, gateway, seconds, 1)
    return {
        "CPU µs a request, one client alone": alone,
        "one of a million": among,
        "a million in turn": many,
        "MiB that they take": memory / 1024,
    }


def run(bench, gateway, seconds, count):
    """CPU microseconds of a request, and requests a second."""
    before = gateway.cpu_seconds()
    seen = execute_addressed(bench, gateway, seconds, count)
    return (gateway.cpu_seconds() - before) * 1e6 / seen["requests"], seen["rps"]


def execute_addressed(bench, gateway, seconds, count):
    command = bench.load.wrk_command(gateway.url("HS256", PATH), seconds, CONNECTIONS, {}, more=("addresses.lua", count))
    seen = read_wrk(execute(command, seconds))
    if seen["errors"] or seen["not_2xx"]:
        raise BadRun(f"{seen['errors']} errors and {seen['not_2xx']} refusals")
    return seen

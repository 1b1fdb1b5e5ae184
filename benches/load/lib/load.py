"""Runs of the load generators: wrk for HTTP/1.1, h2load for HTTP/2. Each gives one `dict` of plain numbers."""

import json
import re
import subprocess

from .peers import LUA


class BadRun(Exception):
    """The load generator failed or wrote something that cannot be read."""


def execute(command, seconds):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    except subprocess.TimeoutExpired as error:
        raise BadRun(f"{command[3]} did not end") from error
    if done.returncode != 0:
        raise BadRun(f"{command[3]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


class Load:
    """One kind of load, bound to the cores that generate it."""

    def __init__(self, cores, folder, rank=()):
        self.cores, self.folder, self.rank = cores, folder, rank

    def ranked(self, rank):
        """The same load by generators that a command before them gives another priority."""
        return Load(self.cores, self.folder, rank)

    def pinned(self, *command):
        return ["taskset", "-c", ",".join(map(str, self.cores)), *self.rank, *map(str, command)]

    def wrk(self, url, seconds, connections, headers, users=None):
        """Keeps every connection busy with one request at a time. `users` names a file of tokens to send in turn."""
        more = ("users.lua", users) if users else None
        return read_wrk(execute(self.wrk_command(url, seconds, connections, headers, more), seconds))

    def wrk_command(self, url, seconds, connections, headers, more=None):
        """`more` is a script that makes the requests, and its argument."""
        name, *arguments = more or ("plain",)
        script = self.folder / f"wrk-{name}"
        parts = [LUA / "done.lua"] + ([LUA / name] if more else [])
        script.write_text("\n".join(part.read_text() for part in parts))
        command = self.pinned("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", script)
        for field, value in headers.items():
            command += ["-H", f"{field}: {value}"]
        return [*command, url, *(["--", *map(str, arguments)] if more else [])]

    def h2load(self, url, seconds, headers, *, connections, streams):
        """Keeps `streams` requests open on every HTTP/2 connection."""
        return self._h2load(url, seconds, headers, "h2", [f"-c{connections}", f"-m{streams}", f"-D{seconds}"])

    def steady(self, url, seconds, headers, *, connections, rate):
        """Sends `rate` requests a second over HTTP/1.1 connections that are kept open."""
        pace = ["--h1", f"-c{connections}", f"--rps={rate / connections}", f"-D{seconds}"]
        return self._h2load(url, seconds, headers, "http/1.1", pace)

    def handshakes(self, url, seconds, headers, *, rate):
        """Opens `rate` connections a second, never resuming a TLS session, each for one HTTP/1.1 request."""
        total = rate // 10 * 10 * seconds
        return self._h2load(url, seconds, headers, "http/1.1", ["--h1", f"-n{total}", f"-c{total}", f"-r{rate // 10}", "--rate-period=100ms"])

    def _h2load(self, url, seconds, headers, expected, shape):
        """h2load prints no percentiles: they come from its log, a line for each answer."""
        log = self.folder / "h2load.log"
        log.unlink(missing_ok=True)
        command = self.pinned("h2load", "-t1", *shape, f"--log-file={log}")
        for name, value in headers.items():
            command += ["-H", f"{name.lower()}: {value}"]
        out = execute([*command, url], seconds)
        total = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
        protocol = re.search(r"Application protocol: (\S+)", out)
        took = re.search(r"finished in .*?([\d.]+) req/s", out)
        if not (total and codes and protocol and took):
            raise BadRun(f"h2load gave no result: {out[-500:]}")
        if protocol.group(1) != expected:
            raise BadRun(f"h2load spoke {protocol.group(1)} instead of {expected}")
        done, _succeeded, _failed, errored, timeout = map(int, total.groups())
        times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
        if not times:
            raise BadRun("h2load made no request")
        return {"requests": done, "rps": float(took.group(1)), "errors": errored + timeout,
                "not_2xx": sum(map(int, codes.groups()[1:])), "p50_us": times[len(times) // 2],
                "p99_us": times[min(len(times) - 1, len(times) * 99 // 100)]}


def read_wrk(out):
    line = re.search(r"^RESULT (.*)$", out, re.M)
    if not line:
        raise BadRun(f"wrk gave no result: {out[-500:]}")
    seen = json.loads(line.group(1))
    kinds = {kind: seen[kind] for kind in ("connect", "read", "write", "timeout") if seen[kind]}
    return {"requests": seen["requests"], "rps": seen["requests"] / (seen["duration_us"] / 1e6), "errors": sum(kinds.values()), "error_kinds": kinds,
            "not_2xx": seen["status"], "p50_us": seen["p50_us"], "p99_us": seen["p99_us"]}


def read_refusals(out):
    """Answers of the class 4xx in a second, of h2load's summary."""
    codes = re.search(r"status codes: \d+ 2xx, \d+ 3xx, (\d+) 4xx", out)
    took = re.search(r"finished in ([\d.]+)(ms|s|m)?,", out)
    if not (codes and took):
        raise BadRun(f"h2load gave no result: {out[-500:]}")
    return int(codes.group(1)) / (float(took.group(1)) * {"ms": 0.001, "m": 60}.get(took.group(2), 1))

"""The goals that Portcullis set itself, each with what a run says of it. Reasons are links within docs/performance.md."""

from statistics import median

from .report import number, ratios, spread

OURS = "portcullis"


class Goal:
    """`take` gives the values of all rounds, from the runs of all cases and the values of all figures; none where they were not
    measured. `least` means that the goal is a floor and no ceiling."""

    def __init__(self, words, goal, take, least=False, why="[the tables](#load-test)"):
        self.words, self.goal, self.take, self.least, self.why = words, goal, take, least, why

    def row(self, values):
        bound = f"{'at least' if self.least else 'at most'} {plain(self.goal)}"
        reached = median(values) >= self.goal if self.least else median(values) <= self.goal
        return f"| {self.words} | {bound} | {spread(values, number)} | {'yes |' if reached else f'**no** | {self.why}'} |"


def plain(goal):
    return f"{goal:,}".replace(",", " ") if isinstance(goal, int) else f"{goal:.2f}"


def unmeasured(goal):
    return f"| {goal.words} | {'at least' if goal.least else 'at most'} {plain(goal.goal)} | not measured in this run | | |"


def over(case, peer, base=None):
    """CPU time of ours over a peer's, round by round; `base` is the other one's case, where it is not the same."""
    def take(cases, _figures):
        return ratios(cases.get(case, {}).get(OURS, []), cases.get(base or case, {}).get(peer, []))
    return take


def figure(name, part=None):
    def take(_cases, figures):
        values = figures.get(name, {}).get(OURS, [])
        return [value[part] for value in values] if part else values
    return take


def change_of_others(_cases, figures):
    values = figures.get("limited", {}).get(OURS, [])
    return [value["p99 ms beside these"] / value["p99 ms of good clients alone"] for value in values]


INSTRUCTIONS = "[where its instructions go](#where-a-requests-instructions-go)"
USERS = "[many users in turn](#many-users-in-turn)"
CONNECTION = "[where its time goes](#where-a-new-connections-time-goes)"
REFUSAL = "[what a refusal costs](#what-a-refusal-costs)"

GOALS = (
    Goal("HS256, HTTP/1.1, 64 connections, over nginx with Lua", 0.80, over("hs256", "nginx-lua"), why=INSTRUCTIONS),
    Goal("RS256, token seen before, over our HS256", 1.03, over("rs256", OURS, "hs256")),
    Goal("ES256, token seen before, over our HS256", 1.03, over("es256", OURS, "hs256")),
    Goal("RS256, 10 000 users in turn, over our RS256 of one user", 1.10, over("users-rs256", OURS, "rs256"), why=USERS),
    Goal("HTTP/2, 16 connections of 32 streams, over HAProxy", 0.65, over("h2", "haproxy"), why=INSTRUCTIONS),
    Goal("answers of 100 KB, over Pingora", 0.75, over("blob", "pingora")),
    Goal("a new connection for each request, TLS session resumed, over Pingora", 0.85, over("connect", "pingora"), why=CONNECTION),
    Goal("a full TLS handshake for each request, over Pingora", 0.85, over("handshake", "pingora"), why=CONNECTION),
    Goal("HS256 with a bad signature, refused, over Pingora", 0.80, over("refused", "pingora"), why=REFUSAL),
    Goal("RS256 with a bad signature, refused, over Pingora", 0.80, over("refused-rs256", "pingora"), why=REFUSAL),
    Goal("2 000 requests a second, over nginx with Lua", 1.00, over("steady", "nginx-lua")),
    Goal("HS256 over our public route", 1.03, over("hs256", OURS, "public"), why=INSTRUCTIONS),
    Goal("rate of 8 good connections beside 64 that send bad RS256 tokens, % of their rate alone", 80, figure("kept"), least=True),
    Goal("resident KiB of an idle TLS connection", 12, figure("idle"), why="[memory](#memory-of-an-idle-connection)"),
    Goal("system calls a request", 4.2, figure("syscalls"), why=INSTRUCTIONS),
    Goal("requests beyond the limit refused by one core in a second", 50_000, figure("limited", "429/s of one core"), least=True),
    Goal("99th percentile of others meanwhile, over theirs alone: no change, so a tenth at most", 1.10, change_of_others),
    Goal("CPU time of such a refusal, % of a login's", 1, figure("limited", "a 429, % of a login")),
)


def table(cases, figures):
    """Every goal; empty where the run says nothing of any."""
    found = [(goal, goal.take(cases, figures)) for goal in GOALS]
    if not any(values for _, values in found):
        return ""
    head = ["CPU time a request, ours over the other's, where nothing else is said.", "",
            "| goal | | measured | reached | if not, why |", "|---|---|---|---|---|"]
    return "\n".join(head + [goal.row(values) if values else unmeasured(goal) for goal, values in found])

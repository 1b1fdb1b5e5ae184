"""Medians, spreads and ratios of the runs, as Markdown and as plain data."""

from statistics import median


def spread(values, form):
    values = sorted(values)
    text = form(median(values))
    return text if len(values) == 1 else f"{text} ({form(values[0])}–{form(values[-1])})"


def microseconds(value):
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def milliseconds(value):
    return f"{value / 1000:.2f}" if value < 10_000 else f"{value / 1000:.0f}"


def good(runs):
    return [run for run in runs if run["good"]]


def ratios(runs, base):
    """This gateway's CPU time over another's, round by round: what slowed both in one round cancels out."""
    other = {run["round"]: run["cpu_us"] for run in good(base)}
    return [run["cpu_us"] / other[run["round"]] for run in good(runs) if other.get(run["round"])]


def row(label, runs, bases):
    bad = len(runs) - len(good(runs))
    errors = sum(run["errors"] + run["wrong_status"] for run in runs)
    runs_good = good(runs)
    if not runs_good:
        return f"| {label} | no good run | | | | {' | '.join('–' for _ in bases)} | {errors} in {bad} runs |"
    cells = [
        spread([run["cpu_us"] for run in runs_good], microseconds),
        spread([run["rps"] for run in runs_good], lambda value: f"{value:,.0f}".replace(",", " ")),
        spread([run["p50_us"] for run in runs_good], milliseconds),
        spread([run["p99_us"] for run in runs_good], milliseconds),
    ]
    for base in bases:
        values = ratios(runs, base)
        cells.append(spread(values, lambda value: f"{value:.2f}") if values else "–")
    return f"| {label} | {' | '.join(cells)} | {f'{errors} in {bad} runs' if bad else '0'} |"


def case_table(title, results, labels):
    """`results` maps a gateway's name to its runs."""
    lines = [f"### {title}", "",
             "| gateway | CPU µs a request | requests/s | p50 ms | p99 ms | CPU to Portcullis | CPU to nginx | errors |",
             "|---|---|---|---|---|---|---|---|"]
    bases = [results.get("portcullis", []), results.get("nginx", [])]
    lines += [row(labels[name], runs, bases) for name, runs in results.items()]
    return "\n".join(lines)


def authentication_table(public, checked, labels):
    """What authentication itself costs: the same gateway, the same round, with a checked token over without."""
    lines = ["### Cost of authentication: `hs256` over `public`", "",
             "| gateway | added CPU µs a request | ratio |", "|---|---|---|"]
    for name, runs in checked.items():
        base = {run["round"]: run["cpu_us"] for run in good(public.get(name, []))}
        pairs = [(run["cpu_us"], base[run["round"]]) for run in good(runs) if run["round"] in base]
        if pairs and name not in ("nginx", "trial"):
            added = spread([with_token - without for with_token, without in pairs], microseconds)
            lines.append(f"| {labels[name]} | {added} | {spread([a / b for a, b in pairs], lambda value: f'{value:.2f}')} |")
    return "\n".join(lines) if len(lines) > 4 else ""


def noise(results):
    runs = [run for case in results.values() for peer in case.values() for run in peer]
    shares = sorted(run["foreign"] for run in runs)
    return {"median": median(shares), "max": shares[-1]} if shares else {"median": 0.0, "max": 0.0}


def number(value):
    """A figure of any size, with two or three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def plain(value):
    """A figure's value on one line of progress."""
    return ", ".join(f"{key} {number(part)}" for key, part in value.items()) if isinstance(value, dict) else f"{value:8.1f}"


def figure_table(title, results, labels):
    """`results` maps a gateway's name to its values; a value is one number, or several by name, which become columns."""
    names = next((list(value) for values in results.values() for value in values if isinstance(value, dict)), None)
    lines = [f"### {title}", "", f"| gateway | {' | '.join(names or ['value'])} |", "|---" * (len(names or [0]) + 1) + "|"]
    for name, values in results.items():
        if not values:
            cells = ["no good run"] + [""] * (len(names or [0]) - 1)
        elif names:
            cells = [spread([value[key] for value in values], number) for key in names]
        else:
            cells = [spread(values, lambda value: f"{value:.1f}")]
        lines.append(f"| {labels[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(facts, results, figures, titles, labels):
    parts = ["## Load test", "\n".join(f"- {name}: {value}" for name, value in facts.items())]
    parts += [case_table(titles[name], case, labels) for name, case in results.items()]
    if "hs256" in results and "public" in results:
        parts.append(authentication_table(results["public"], results["hs256"], labels))
    parts += [figure_table(titles[name], figure, labels) for name, figure in figures.items()]
    return "\n\n".join(part for part in parts if part) + "\n"

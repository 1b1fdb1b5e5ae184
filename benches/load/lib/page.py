"""Puts what was measured into a page of the documentation, between the two comments that name its place there."""


def put(path, name, text):
    begin, end = f"<!-- BEGIN {name} -->\n", f"\n<!-- END {name} -->"
    page = path.read_text()
    head, found_begin, rest = page.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found_begin and found_end):
        raise SystemExit(f"{path} has no place for it: {begin.strip()} and {end.strip()} are needed")
    path.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}")

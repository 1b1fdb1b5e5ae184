"""curl as a client."""

import json
import subprocess

from frame.process import PATIENCE


class Failed(AssertionError):
    """curl got no answer."""


class Reply:
    """One answer as curl saw it: status, fields by lower-case name, body, and curl's own figures (`--write-out`)."""

    def __init__(self, status, fields, body, figures, trace):
        self.status, self.fields, self.body, self.figures, self.trace = status, fields, body, figures, trace

    def json(self):
        return json.loads(self.body)


class Curl:
    """curl with the gateway's certificate and one version of HTTP."""

    def __init__(self, gateway, *version):
        self.gateway = gateway
        self.version = version

    def __call__(self, path, *words, user_token=None, stdin=b"", patience=PATIENCE):
        """Asks for one path; more options of curl in `words`, the seconds that it may take in `patience`."""
        head = self.gateway.folder / "curl.head"
        command = [
            *("curl", "--silent", "--show-error", "--verbose", "--path-as-is", "--globoff"),
            *("--cacert", str(self.gateway.certificate), "--max-time", str(patience)),
            *("--dump-header", str(head), "--write-out", "%{stderr}\nfigures %{json}\n"),
            *(self.version or ()),
            *(("--oauth2-bearer", user_token) if user_token else ()),
            *words,
            self.gateway.url + path,
        ]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=patience + 10)
        trace, _, figures = done.stderr.decode(errors="replace").rpartition("\nfigures ")
        if done.returncode != 0:
            raise Failed(f"curl ended with {done.returncode}:\n{trace[-3000:]}")
        figures = json.loads(figures)
        return Reply(figures["response_code"], last_head(head.read_text("latin-1")), done.stdout, figures, trace)


def last_head(text):
    """The fields of the last head, after interim ones."""
    head = text.strip().replace("\r\n", "\n").split("\n\n")[-1]
    fields = {}
    for line in head.split("\n")[1:]:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    return fields

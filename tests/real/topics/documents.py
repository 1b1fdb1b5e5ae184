"""What README.md, docs/accounts.md and the demo tell people to type works when it is typed."""

# Proves: HDR-1

import json
import os
import pathlib
import re
import shlex
import subprocess

from frame.gateway import PASSWORD, Gateway
from frame.process import PATIENCE, Process, free_port
from frame.runner import Settings, Topic

ROOT = pathlib.Path(__file__).resolve().parents[3]


def blocks(path, heading):
    """The fenced blocks without a language below a heading, in order."""
    text = (ROOT / path).read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}\n", text, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    return re.findall(r"^```\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


class Documents(Topic):
    programs = ("bash", "curl", "sed")

    @classmethod
    def begin(cls):
        binaries = cls.folder / "bin"
        binaries.mkdir()
        (binaries / "portcullis").symlink_to(Settings.binary)
        cls.environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "HOME": str(cls.folder)}

    def typed(self, script, folder, line=""):
        """Types a script into bash, with the gateway in PATH; gives what was printed."""
        options = {"cwd": folder, "env": self.environment, "input": line, "timeout": PATIENCE}
        done = subprocess.run(["bash", "-uo", "pipefail", "-c", script], capture_output=True, text=True, **options)
        self.assertEqual(done.returncode, 0, f"{script}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def started(self, command, folder):
        process = Process(command, cwd=folder, env=self.environment)
        self.addCleanup(process.stop)
        return process

    def test_readme_protects_a_backend(self):
        build, backend, serve, account, use = blocks("README.md", "Protect your own backend in five minutes")
        ports = {name: str(free_port()) for name in ("8000", "8443", "9901")}

        def here(text):
            return re.sub(r"\b(8000|8443|9901)\b", lambda port: ports[port[0]], text)

        folder = self.folder / "gate"
        self.typed(build.splitlines()[1], self.folder)
        self.started(shlex.split(here(backend).rstrip("& \n")), folder).listens_on(int(ports["8000"]))
        init, run = here(serve).splitlines()
        self.typed(init, folder)
        configuration = folder / "config" / "gateway.toml"
        configuration.write_text(here(configuration.read_text()))
        self.typed("portcullis check", folder)
        self.started(shlex.split(run), folder).listens_on(int(ports["8443"]))
        self.typed(account, folder, line=f"{PASSWORD}\n")
        printed = self.typed(here(use).replace("the password", PASSWORD), folder)
        self.assertEqual(re.findall(r"HTTP/\S+ (\d+)", printed), ["401", "200"])
        self.assertIn('"code":"credentials_missing"', printed)
        self.assertIn("Directory listing", printed)

    def test_demo_prints_commands_that_do_what_they_say(self):
        port, admin_port = free_port(), free_port()
        demo = self.started(["portcullis", "demo", "--port", str(port), "--admin-port", str(admin_port)], self.folder)
        demo.out.find("the end of the instructions", lambda line: "Press Ctrl-C" in line or None)
        steps = dict(re.findall(r"^  # (\d)\. .*\n((?:  .*\n)+)", demo.out.text(), re.MULTILINE))
        self.assertEqual(sorted(steps), list("1234567"))
        shown = {step: self.typed(steps["2"] + steps[step], self.folder) for step in "134567"}
        self.assertEqual(json.loads(shown["1"])["code"], "credentials_missing")
        for step in "34":
            self.assertEqual(json.loads(shown[step])["headers"]["x-forwarded-user"], ["admin"])
        self.assertEqual(json.loads(shown["5"])["code"], "role_missing")
        self.assertRegex(shown["6"], r"\d+ 200\n *\d+ 429")
        self.assertIn('"ready":true', shown["7"])
        self.assertIn("portcullis_decisions_total", shown["7"])

    def test_accounts_from_login_to_logout(self):
        routes = """
            [[upstream]]
            name = "none"
            servers = ["http://127.0.0.1:1"]
            [[route]]
            name = "app"
            path_prefix = "/app"
            upstream = "none"
            access = "authenticated"
            """
        gateway = Gateway(self.folder, routes)
        self.addCleanup(gateway.stop)
        make = blocks("docs/accounts.md", "Make a user")[0]
        self.typed(make, gateway.folder, line=f"{PASSWORD}\n")
        told = re.search(r"With a development\s+certificate add `(--cacert \S+)`", (ROOT / "docs" / "accounts.md").read_text())
        login, who, refresh, logout = (blocks("docs/accounts.md", name)[0] for name in ("Sign in", "Who am I", "Refresh", "Log out"))
        login = login.replace("…", PASSWORD)
        keep = "sed 's/.*\"{0}\":\"\\([^\"]*\\)\".*/\\1/'"
        script = f"""
            curl() {{ command curl {told[1]} "$@"; }}
            BASE={gateway.url}
            LOGIN=$({login.strip()})
            ACCESS=$(printf %s "$LOGIN" | {keep.format("access_token")})
            REFRESH=$(printf %s "$LOGIN" | {keep.format("refresh_token")})
            {who.strip()}; echo
            NEXT=$({refresh.strip()})
            ACCESS=$(printf %s "$NEXT" | {keep.format("access_token")})
            REFRESH=$(printf %s "$NEXT" | {keep.format("refresh_token")})
            {who.strip()}; echo
            {logout.strip()}
            {who.strip()}; echo
            """
        first, second, *rest = self.typed(script, gateway.folder).splitlines()
        self.assertEqual(json.loads(first)["user"]["username"], "alice")
        self.assertEqual(json.loads(second)["roles"], ["clerk"])
        self.assertRegex(rest[0], r"^HTTP/\S+ 204")
        self.assertEqual(json.loads(rest[-1])["code"], "token_invalid")

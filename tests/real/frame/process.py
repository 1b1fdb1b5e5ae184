"""Processes that end with the run, and free ports."""

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time

# How long to wait for what must happen. Generous, for machines that are busy with other things.
PATIENCE = 30

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Process:
    """A running program whose lines are gathered. `command[0]` is looked up in PATH."""

    def __init__(self, command, **options):
        self.name = os.path.basename(str(command[0]))
        self.child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
            **options,
        )
        self.out = Output(self.child.stdout)
        self.err = Output(self.child.stderr)

    def stop(self):
        """Asks it to leave, and makes it after a while."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.child.pid, signal.SIGKILL)  # whoever it started and left behind
        except ProcessLookupError:
            pass
        self.child.wait()

    def listens_on(self, port):
        """Waits until it accepts connections there; gives itself."""

        def accepts():
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{self.err.text()}{self.out.text()}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(f"{self.name} listens on {port}", accepts)
        return self


class Output:
    """The lines that a process has written so far."""

    def __init__(self, pipe):
        self.lines = []
        self.changed = threading.Condition()
        self.ended = False
        threading.Thread(target=self.read, args=(pipe,), daemon=True).start()

    def read(self, pipe):
        with pipe:
            for line in pipe:
                with self.changed:
                    self.lines.append(line.decode(errors="replace").rstrip("\n"))
                    self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def text(self):
        with self.changed:
            return "".join(f"{line}\n" for line in self.lines)

    def find(self, what, made):
        """Waits for a line of which `made` makes something, and gives that."""
        end = time.monotonic() + PATIENCE
        seen = 0
        with self.changed:
            while True:
                while seen < len(self.lines):
                    found = made(self.lines[seen])
                    seen += 1
                    if found is not None:
                        return found
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    raise AssertionError(f"{what}: no such line in\n" + "\n".join(self.lines[-40:]))
                self.changed.wait(left)


def die_with_parent():
    """Runs in the child: a run that is killed leaves nothing behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    """A port that nobody listens on. Servers that cannot tell which port they took get one in their configuration."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, holds):
    """Waits until `holds()` is true."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.05)

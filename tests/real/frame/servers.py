"""Servers that others wrote, each with a private configuration on a free port."""

import os
import signal
import sys

from frame.process import Process, eventually, free_port


class Nginx(Process):
    """nginx with the `server` blocks of the caller, who names ports with `free_port`."""

    def __init__(self, folder, servers, port):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        temporary = "\n".join(
            f"    {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""  # the folder is closed to everybody else
        self.configuration = folder / "nginx.conf"
        self.configuration.write_text(
            f"daemon off;\n{user}\nworker_processes 1;\nworker_shutdown_timeout 10s;\npid {folder}/pid;\n"
            f"error_log {folder}/error.log info;\nevents {{ worker_connections 1024; }}\n"
            f"http {{\n    access_log off;\n{temporary}\n{servers}\n}}\n"
        )
        super().__init__(["nginx", "-p", folder, "-e", folder / "error.log", "-c", self.configuration])
        self.listens_on(port)

    def workers(self):
        """The process ids of its workers, those of older configurations too."""
        with open(f"/proc/{self.child.pid}/task/{self.child.pid}/children", encoding="ascii") as children:
            return set(children.read().split())

    def reload(self):
        """Has new workers take over; waits until there is one."""
        before = self.workers()
        self.child.send_signal(signal.SIGHUP)
        eventually("nginx has a new worker", lambda: self.workers() - before)


class Gunicorn(Process):
    """The WSGI server gunicorn with one threaded worker."""

    def __init__(self, folder, application):
        self.port = free_port()
        words = ("--bind", f"127.0.0.1:{self.port}", "--workers", "1", "--threads", "4", "--worker-tmp-dir", folder)
        super().__init__([sys.executable, "-m", "gunicorn", *words, f"{application.stem}:application"], cwd=application.parent)
        self.listens_on(self.port)


class Waitress(Process):
    """The WSGI server waitress."""

    def __init__(self, application):
        self.port = free_port()
        words = ("--host", "127.0.0.1", "--port", self.port, "--no-clear-untrusted-proxy-headers")
        super().__init__([sys.executable, "-m", "waitress", *words, f"{application.stem}:application"], cwd=application.parent)
        self.listens_on(self.port)


class Wsgiref(Process):
    """The WSGI server of Python's standard library: an application that is run as a script serves itself."""

    def __init__(self, application):
        self.port = free_port()
        super().__init__([sys.executable, application, self.port])
        self.listens_on(self.port)


class Lighttpd(Process):
    """lighttpd that hands every path to one CGI script, which it runs with Python."""

    def __init__(self, folder, script):
        folder.mkdir(parents=True)
        self.port = free_port()
        configuration = folder / "lighttpd.conf"
        configuration.write_text(
            f'server.modules = ("mod_alias", "mod_cgi")\nserver.document-root = "{folder}"\nserver.bind = "127.0.0.1"\n'
            f'server.port = {self.port}\nserver.errorlog = "{folder}/error.log"\nserver.upload-dirs = ("{folder}")\n'
            f'alias.url = ("/" => "{script}/")\ncgi.assign = ("" => "{sys.executable}")\n'
        )
        super().__init__(["lighttpd", "-D", "-f", configuration])
        self.listens_on(self.port)


class Php(Process):
    """PHP's own server, with one script for every path."""

    def __init__(self, script):
        self.port = free_port()
        super().__init__(["php", "-n", "-S", f"127.0.0.1:{self.port}", script], cwd=script.parent)
        self.listens_on(self.port)


class Node(Process):
    """A server written for Node; it takes its port as an argument."""

    def __init__(self, script):
        self.port = free_port()
        super().__init__(["node", script, str(self.port)])
        self.listens_on(self.port)

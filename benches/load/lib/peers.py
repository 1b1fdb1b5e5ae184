"""The upstream and the gateways that are measured: their configuration, start, check and stop."""

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

from . import accounting, tokens

LUA = Path(__file__).resolve().parent.parent / "lua"
NGINX_MODULES = Path("/usr/lib/nginx/modules")
START_SECONDS = 20
STOP_SECONDS = 5
BLOB_BYTES = 100_000
# A limit that is on, costs what a limit costs, and is never reached.
RATE = 1_000_000
ECHO = ("user", "email", "preferred_username", "groups")


class Unavailable(Exception):
    """The gateway is not installed here."""


class WrongPeer(Exception):
    """A gateway does not do the work that it is to be measured for."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def end_with_parent():
    """Runs in the child: the kernel ends it should this script be killed outright."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Process:
    """One started program, pinned to some cores. Only its own process id is ever signalled."""

    def __init__(self, name, command, cores, folder, output=None):
        self.name = name
        self.errors = folder / f"{name}.stderr"
        with open(self.errors, "wb") as errors:
            self.child = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)], cwd=folder,
                stdin=subprocess.DEVNULL, stdout=output or subprocess.DEVNULL, stderr=errors, preexec_fn=end_with_parent)

    def fault(self):
        return self.errors.read_text(errors="replace").strip()[-2000:] or "it wrote nothing to standard error"

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Server:
    """A program that listens. `ports` holds its ports by name."""

    name = ""
    port_names = ()

    def __init__(self, folder, cores):
        self.folder, self.cores = folder / self.name, cores
        self.folder.mkdir()
        self.ports = {name: free_port() for name in self.port_names}
        self.process = None
        self.pids = []

    def command(self):
        raise NotImplementedError

    def start(self):
        command = self.command()
        self.process = Process(self.name, command, self.cores, self.folder, self.output())
        deadline = time.monotonic() + START_SECONDS
        for port in self.ports.values():
            while not answers(port):
                if self.process.child.poll() is not None:
                    raise WrongPeer(f"{self.name} did not start: {self.process.fault()}")
                if time.monotonic() > deadline:
                    raise WrongPeer(f"{self.name} did not listen within {START_SECONDS} s: {self.process.fault()}")
                time.sleep(0.02)
        self.pids = accounting.tree(self.process.child.pid)

    def output(self):
        return None

    def stop(self):
        if self.process:
            self.process.stop()

    def cpu_seconds(self):
        try:
            return accounting.cpu_seconds(self.pids)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise WrongPeer(f"{self.name} ended by itself: {self.process.fault()}") from error


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def nginx_program():
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not os.access(program, os.X_OK):
        raise Unavailable("nginx is not installed")
    return program


def nginx_frame(folder, modules, http, workers=1):
    """What every nginx here has in common: no log of requests, every path inside the folder."""
    paths = "\n".join(f"  {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
{modules}
{user}
daemon off;
pid {folder}/nginx.pid;
worker_processes {workers};
worker_rlimit_nofile 20000;
error_log stderr crit;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  server_tokens off;
{paths}
{http}
}}
"""


class Upstream(Server):
    """The backend: nginx that answers a few bytes, 100 KB, or what it was told of the caller."""

    name = "upstream"
    port_names = ("http",)

    def command(self):
        (self.folder / "blob").write_bytes(os.urandom(BLOB_BYTES))
        seen = ",".join(f'"{name}":"$http_x_forwarded_{name}"' for name in ECHO)
        seen += ',"authorization":"$http_authorization","request_id":"$http_x_request_id"'
        config = self.folder / "nginx.conf"
        config.write_text(nginx_frame(self.folder, "", f"""
  sendfile on;
  keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{self.ports['http']} backlog=4096;
    default_type application/json;
    location / {{ return 200 '{{"ok":true}}'; }}
    location /echo {{ return 200 '{{{seen}}}'; }}
    location /blob {{ default_type application/octet-stream; alias {self.folder}/blob; }}
  }}"""))
        return [nginx_program(), "-p", self.folder, "-e", "stderr", "-c", config]


class Gateway(Server):
    """A gateway under measurement."""

    # Whether it checks tokens at all, and whether it checks every claim and tells the upstream every one.
    authenticates = True
    thorough = True
    label = ""
    # Refusals for which this gateway has another status than the others.
    statuses = {}

    def __init__(self, folder, cores, keys, upstream, options):
        super().__init__(folder, cores)
        self.keys, self.upstream, self.options = keys, upstream, options

    def url(self, alg, path):
        return f"https://127.0.0.1:{self.port(alg)}{path}"

    def port(self, _alg):
        return self.ports["tls"]

    def version(self):
        raise NotImplementedError

    def seen(self, told):
        """What the upstream was told, where this gateway writes it in a form of its own."""
        return told

    def before_run(self):
        """Called before each measured run."""

    def after_run(self, run):
        """Called after each measured run; may add to it what only this gateway knows."""


class Nginx(Gateway):
    name = "nginx"
    label = "nginx, no token check"
    port_names = ("tls",)
    authenticates = False

    def start(self):
        """Its workers come one after the other, and the first answers before the last is there."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while len(self.pids) <= self.options.workers and time.monotonic() < deadline:
            time.sleep(0.02)
            self.pids = accounting.tree(self.process.child.pid)

    def version(self):
        return subprocess.run([nginx_program(), "-v"], capture_output=True, text=True).stderr.strip().split("/")[-1]

    def modules(self):
        return ""

    def prelude(self):
        return ""

    def protected(self):
        """Lines of a location that checks tokens."""
        return ""

    def command(self):
        forwarding = """
      limit_req zone=ip burst=100000 nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Request-Id $request_id;
      proxy_pass http://app;"""
        config = self.folder / "nginx.conf"
        config.write_text(nginx_frame(self.folder, self.modules(), f"""
{self.prelude()}
  limit_req_zone $binary_remote_addr zone=ip:10m rate={RATE}r/s;
  proxy_buffer_size 16k;
  proxy_buffers 16 16k;
  proxy_max_temp_file_size 0;
  keepalive_requests 1000000000;
  keepalive_timeout 75s;
  upstream app {{
    server 127.0.0.1:{self.upstream.ports['http']};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{self.ports['tls']} ssl http2 backlog=4096;
    http2_max_requests 1000000000;
    ssl_certificate {self.keys.cert};
    ssl_certificate_key {self.keys.cert_key};
    ssl_protocols TLSv1.3;
    ssl_session_cache shared:tls:10m;
    location / {{
{self.protected()}
{forwarding}
    }}
    location /public {{
{forwarding}
    }}
  }}""", self.options.workers))
        return [nginx_program(), "-p", self.folder, "-e", "stderr", "-c", config]


class NginxLua(Nginx):
    name = "nginx-lua"
    label = "nginx + Lua, token cache"
    authenticates = True

    def modules(self):
        needed = [NGINX_MODULES / "ndk_http_module.so", NGINX_MODULES / "ngx_http_lua_module.so"]
        for module in needed:
            if not module.exists():
                raise Unavailable(f"{module.name} is not installed (Debian: libnginx-mod-http-lua)")
        return "\n".join(f"load_module {module};" for module in needed)

    def prelude(self):
        issuers = "\n".join(
            f'        ["{tokens.issuer(alg)}"] = {{ alg = "{alg}", '
            + (f'secret = "{self.keys.secret}"' if alg == "HS256" else f'public_key_file = "{self.keys.public[alg]}"')
            + " }," for alg in tokens.ALGORITHMS)
        return f"""
  lua_package_path "{LUA}/?.lua;;";
  init_by_lua_block {{
    require("gate").start {{
      audience = "{tokens.AUDIENCE}", role = "user",
      issuers = {{
{issuers}
      }},
    }}
  }}"""

    def protected(self):
        names = {"user": "User", "email": "Email", "name": "Preferred-Username", "groups": "Groups"}
        lines = [f"      set $gate_{name} '';" for name in (*names, "scopes", "issuer")]
        lines += [f"      proxy_set_header X-Forwarded-{header} $gate_{name};" for name, header in names.items()]
        return "\n".join([*lines, """
      proxy_set_header X-Auth-Issuer $gate_issuer;
      proxy_set_header X-Auth-Scopes $gate_scopes;
      proxy_set_header Authorization "";
      access_by_lua_block { require("gate").check() }"""])


class HaProxy(Gateway):
    name = "haproxy"
    label = "HAProxy, jwt_verify and all claims"
    port_names = tokens.ALGORITHMS

    def version(self):
        return subprocess.run(["haproxy", "-v"], capture_output=True, text=True).stdout.split()[2]

    def port(self, alg):
        return self.ports[alg]

    def frontend(self, alg):
        """One listener and one backend for each algorithm, so that it never has to choose a key."""
        return f"""
frontend {alg}
  bind 127.0.0.1:{self.ports[alg]} ssl crt {self.folder}/tls.pem alpn h2,http/1.1
  http-request track-sc0 src table limit
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {RATE} }}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Request-Id %[uuid()]
  use_backend open if {{ path_beg /public }}
  default_backend checked-{alg}
backend checked-{alg}
{self.token_rules(alg)}
  {self.server()}
"""

    def token_rules(self, alg):
        """Signature first, as HAProxy's manual does; then the claims, out of a payload that is decoded once."""
        key = self.keys.secret if alg == "HS256" else self.keys.public[alg]
        claim = "var(txn.payload),json_query"
        refuse = "http-request deny deny_status 401"
        return "\n".join(f"  {line}" for line in (
            "http-request set-var(txn.token) http_auth_bearer",
            f"{refuse} unless {{ var(txn.token) -m found }}",
            f"{refuse} unless {{ var(txn.token),jwt_header_query('$.alg') -m str {alg} }}",
            f"{refuse} unless {{ var(txn.token),jwt_verify({alg},\"{key}\") -m int 1 }}",
            "http-request set-var(txn.payload) var(txn.token),word(2,.),ub64dec",
            f"{refuse} unless {{ {claim}('$.iss') -m str {tokens.issuer(alg)} }}",
            f"{refuse} unless {{ {claim}('$.aud') -m str {tokens.AUDIENCE} }}",
            "http-request set-var(txn.now) date(-30)",
            f"{refuse} unless {{ {claim}('$.exp','int'),sub(txn.now) -m int gt 0 }}",
            f"http-request set-var(txn.user) {claim}('$.sub')",
            f"{refuse} unless {{ var(txn.user) -m found }}",
            # json_query cannot give a list, so that the two roles of our tokens are asked for one by one.
            f"http-request set-var(txn.role) {claim}('$.roles[0]')",
            f"http-request set-var(txn.role2) {claim}('$.roles[1]')",
            "http-request deny deny_status 403 unless { var(txn.role) -m str user } or { var(txn.role2) -m str user }",
            "http-request del-header Authorization",
            "http-request set-header X-Forwarded-User %[var(txn.user)]",
            "http-request set-header X-Forwarded-Groups %[var(txn.role)],%[var(txn.role2)]",
            f"http-request set-header X-Forwarded-Email %[{claim}('$.email')]",
            f"http-request set-header X-Forwarded-Preferred-Username %[{claim}('$.preferred_username')]",
            f"http-request set-header X-Auth-Scopes %[{claim}('$.scope')]",
            f"http-request set-header X-Auth-Issuer {tokens.issuer(alg)}",
        ))

    def server(self):
        return f"server app 127.0.0.1:{self.upstream.ports['http']} pool-max-conn 1024"

    def command(self):
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        if not os.access(program, os.X_OK):
            raise Unavailable("haproxy is not installed")
        pem = self.folder / "tls.pem"
        pem.touch(mode=0o600)
        pem.write_text(self.keys.cert.read_text() + self.keys.cert_key.read_text())
        frontends = "\n".join(self.frontend(alg) for alg in tokens.ALGORITHMS)
        config = self.folder / "haproxy.cfg"
        config.write_text(f"""
global
  nbthread {self.options.workers}
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 3s
  timeout client 75s
  timeout server 30s
  http-reuse always
backend limit
  stick-table type ip size 100k expire 10s store http_req_rate(1s)
{frontends}
backend open
  {self.server()}
""")
        return [program, "-db", "-f", config]


class HaProxyLean(HaProxy):
    """The rules of the usual guides: less than the others check and tell, and so the least that HAProxy can cost."""

    name = "haproxy-lean"
    label = "HAProxy, jwt_verify, expiry and user alone"
    thorough = False

    def token_rules(self, alg):
        key = self.keys.secret if alg == "HS256" else self.keys.public[alg]
        refuse = "http-request deny deny_status 401"
        return "\n".join(f"  {line}" for line in (
            "http-request set-var(txn.token) http_auth_bearer",
            f"{refuse} unless {{ var(txn.token),jwt_header_query('$.alg') -m str {alg} }}",
            f"{refuse} unless {{ var(txn.token),jwt_verify({alg},\"{key}\") -m int 1 }}",
            "http-request set-var(txn.now) date(-30)",
            f"{refuse} unless {{ var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now) -m int gt 0 }}",
            "http-request del-header Authorization",
            "http-request set-header X-Forwarded-User %[var(txn.token),jwt_payload_query('$.sub')]",
        ))


class Portcullis(Gateway):
    name = "portcullis"
    label = "Portcullis"
    port_names = ("tls", "admin")
    access_log = False
    # Requests of one client, the highest that its limit can be, and who may name another client.
    rate, burst = f"{RATE}/s", RATE
    # Bad tokens of one client: out of the way, for where a refusal is measured, it is that of a token.
    bad_tokens = f'{{ rate = "{RATE}/s", burst = {RATE} }}'
    trusted_proxies = ()

    def binary(self):
        return self.options.binary

    def listen(self):
        return [f"127.0.0.1:{self.ports['tls']}"]

    def accounts(self):
        """The section of accounts, behind its name."""
        return "enabled = false"

    def version(self):
        out = subprocess.run([self.binary(), "--version"], capture_output=True, text=True).stdout.split()
        return out[-1] if out else "unknown"

    def issuer(self, alg):
        source = f'secret_file = "{self.keys.secret_file}"' if alg == "HS256" else f'public_key_file = "{self.keys.public[alg]}"'
        return f"""
[[issuer]]
name = "{alg.lower()}"
issuer = "{tokens.issuer(alg)}"
audience = ["{tokens.AUDIENCE}"]
algorithms = ["{alg}"]
{source}
claims = {{ user = "sub", email = "email", name = "preferred_username", roles = "roles", scopes = "scope" }}
"""

    def command(self):
        if not os.access(self.binary(), os.X_OK):
            raise Unavailable(f"{self.binary()} is not there; build it with `cargo build --release`")
        (self.folder / "config").mkdir(exist_ok=True)
        config = self.folder / "config" / "gateway.toml"
        config.write_text(f"""version = 1
[server]
listen = {json.dumps(self.listen())}
admin_listen = "127.0.0.1:{self.ports['admin']}"
public_url = "https://localhost:{self.ports['tls']}"
trusted_proxies = {json.dumps(self.trusted_proxies)}
workers = {self.options.workers}
max_connections_per_ip = 20000
[tls]
certificates = [{{ cert = "{self.keys.cert}", key = "{self.keys.cert_key}" }}]
min_version = "1.3"
{"".join(self.issuer(alg) for alg in tokens.ALGORITHMS)}
[identity]
preset = "portcullis"
[rate_limit]
per_ip = {{ rate = "{self.rate}", burst = {self.burst} }}
bad_tokens = {self.bad_tokens}
[[upstream]]
name = "app"
servers = ["http://127.0.0.1:{self.upstream.ports['http']}"]
[[route]]
name = "protected"
path_prefix = "/"
upstream = "app"
access = "authenticated"
require = {{ roles = ["user"] }}
[[route]]
name = "public"
path_prefix = "/public"
upstream = "app"
access = "public"
[accounts]
{self.accounts()}
[log]
access = {str(self.access_log).lower()}
""")
        return [self.binary(), "run", "--config", config]

    def output(self):
        return open(self.folder / "access.log", "ab")

    def before_run(self):
        # The file is opened for appending, so that emptying it keeps the space that a run takes bounded.
        os.truncate(self.folder / "access.log", 0)


class PortcullisLog(Portcullis):
    name = "portcullis-log"
    label = "Portcullis, access log on"
    access_log = True

    def after_run(self, run):
        # The gateway drops lines rather than wait. A run that wrote half of them did half of the work.
        time.sleep(0.1)
        with open(self.folder / "access.log", "rb") as log:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
        run["log_lines"] = min(1.0, lines / run["requests"])


class Checker:
    """Asks a gateway what it will be asked in the timed runs, and what it must refuse."""

    def __init__(self, keys):
        self.keys = keys
        self.context = ssl.create_default_context(cafile=str(keys.cert))

    def get(self, peer, alg, path, headers):
        connection = http.client.HTTPSConnection("127.0.0.1", peer.port(alg), timeout=10, context=self.context)
        try:
            connection.request("GET", path, headers=headers)
            cipher = connection.sock.cipher()
            response = connection.getresponse()
            return response.status, response.read(), cipher
        finally:
            connection.close()

    def require(self, peer, what, wanted, alg, path, headers):
        status, body, cipher = self.get(peer, alg, path, headers)
        if status != wanted:
            raise WrongPeer(f"{peer.name}, {alg}, {what}: status {status} instead of {wanted}: {body[:300]!r}")
        return body, cipher

    def check(self, peer):
        """Raises `WrongPeer` for the first thing that is not as it must be; gives the TLS version and cipher suite."""
        forged = {"X-Forwarded-User": "root", "X-Forwarded-Groups": "wheel"}
        body, cipher = self.require(peer, "a public path", 200, "HS256", "/public/x", {})
        if json.loads(body) != {"ok": True}:
            raise WrongPeer(f"{peer.name}: wrong answer on a public path: {body[:300]!r}")
        for alg in tokens.ALGORITHMS if peer.authenticates else ():
            self.refusals(peer, alg)
            good = {"Authorization": f"Bearer {self.keys.token(alg)}", **forged}
            for _ in ("unseen", "seen before"):
                body, _ = self.require(peer, "a good token", 200, alg, "/echo", good)
                self.identity(peer, alg, peer.seen(json.loads(body)))
        if cipher[1] != "TLSv1.3":
            raise WrongPeer(f"{peer.name}: {cipher[1]} instead of TLS 1.3")
        good = {"Authorization": f"Bearer {self.keys.token('HS256')}"}
        body, _ = self.require(peer, "100 KB", 200, "HS256", "/blob", good)
        if len(body) != BLOB_BYTES:
            raise WrongPeer(f"{peer.name}: {len(body)} of {BLOB_BYTES} bytes")
        return f"{cipher[1]} {cipher[0]}, sessions {'resumed' if self.resumes(peer) else 'NOT resumed'}"

    def resumes(self, peer):
        """Whether a second connection may resume the session of a first one, as those of the case `connect` do."""
        request = b"GET /public/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        session = None
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", peer.port("HS256")), 10) as plain, \
                    self.context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
                secure.sendall(request)
                # TLS 1.3 sends its tickets after the handshake, so something has to be read first.
                while secure.recv(4096):
                    pass
                session, reused = secure.session, secure.session_reused
        return reused

    def identity(self, peer, alg, seen):
        if seen["user"] != "user-0" or seen["authorization"]:
            raise WrongPeer(f"{peer.name}, {alg}: the upstream was told {seen}")
        if not peer.thorough:
            return
        told = (seen["user"], seen["email"], seen["preferred_username"], seen["authorization"])
        if told != ("user-0", "user-0@example.com", "user-0", "") or "wheel" in seen["groups"]:
            raise WrongPeer(f"{peer.name}, {alg}: the upstream was told {seen}")
        if "reader" not in seen["groups"] or not seen["request_id"]:
            raise WrongPeer(f"{peer.name}, {alg}: the upstream was not told groups and request id: {seen}")

    def refusals(self, peer, alg):
        token = self.keys.token
        past = int(time.time()) - 3600
        cases = [
            ("no token", 401, None),
            ("a bad signature", 401, tokens.badly_signed(token(alg))),
            ("an expired token", 401, token(alg, exp=past)),
        ]
        cases += [
            ("a token without expiry", 401, token(alg, exp=None)),
            ("another audience", 401, token(alg, aud="other")),
            ("another issuer", 401, token(alg, iss="https://elsewhere.test")),
            ("a missing role", 403, token(alg, roles=["guest"])),
        ] if peer.thorough else []
        for what, status, text in cases:
            headers = {"Authorization": f"Bearer {text}"} if text else {}
            self.require(peer, what, peer.statuses.get(what, status), alg, "/echo", headers)

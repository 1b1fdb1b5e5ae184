"""One gateway believes the tokens of another, whose keys it finds by its address alone (OpenID Connect discovery)."""

# Proves: JWT-4

import httpx

from frame.echo import Echo, fields
from frame.gateway import PASSWORD, Gateway
from frame.process import PATIENCE, eventually, free_port
from frame.runner import Topic

APP = """
[[upstream]]
name = "echo"
servers = ["{url}"]
[[route]]
name = "app"
path_prefix = "/"
upstream = "echo"
access = "authenticated"
"""

PROVIDER = """
[[issuer]]
name = "provider"
issuer = "{url}"
audience = ["portcullis"]
algorithms = ["ES256"]
claims = {{ user = "preferred_username" }}
fetch = {{ ca = "{certificate}", networks = ["127.0.0.0/8", "::1/128"], cooldown = "1s" }}
"""


class Issuers(Topic):
    @classmethod
    def begin(cls):
        cls.echo = cls.keep(Echo())
        app = APP.format(url=cls.echo.url)
        cls.provider = cls.keep(Gateway(cls.folder / "provider", app, users={"alice": ["clerk"]}, port=free_port()))
        provider = PROVIDER.format(url=cls.provider.url, certificate=cls.provider.certificate)
        cls.gateway = cls.keep(Gateway(cls.folder / "gateway", provider + app))

    def ask(self, gateway, method, path, **options):
        return httpx.request(method, gateway.url + path, verify=gateway.tls(), timeout=PATIENCE, **options)

    def signed_in(self):
        login = {"username": "alice", "password": PASSWORD, "delivery": "body"}
        token = self.ask(self.provider, "POST", "/auth/login", json=login).json()["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def test_login_at_the_one_opens_the_other(self):
        caller = self.signed_in()
        eventually("the keys are there", lambda: self.ask(self.gateway, "GET", "/x", headers=caller).status_code != 503)
        answer = self.ask(self.gateway, "GET", "/x", headers=caller)
        self.assertEqual(answer.status_code, 200, answer.text)
        seen = answer.json()
        self.assertEqual(fields(seen, "x-forwarded-user"), ["alice"])
        self.assertEqual(fields(seen, "x-forwarded-groups"), ["clerk"])
        self.assertEqual(fields(seen, "x-auth-issuer"), [self.provider.url])

    def test_it_is_believed_by_nobody_who_was_not_told_to(self):
        login = {"username": "alice", "password": PASSWORD}
        other = self.ask(self.gateway, "POST", "/auth/login", json=login)
        self.assertEqual((other.status_code, other.json()["code"]), (401, "invalid_credentials"))
        me = self.ask(self.gateway, "GET", "/auth/me", headers=self.signed_in())
        self.assertEqual((me.status_code, me.json()["code"]), (403, "claim_mismatch"))

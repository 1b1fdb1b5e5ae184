"""Chromium: signing in, silent renewal, several hosts, the account page. What only a browser decides is decided here."""

# Proves: SESS-5, SESS-6, URI-6

import importlib.util
import unittest

from frame.echo import Echo
from frame.gateway import PASSWORD, Gateway
from frame.process import PATIENCE, eventually, free_port
from frame.runner import Topic

ROUTES = """
[[upstream]]
name = "echo"
servers = ["{url}"]
[[route]]
name = "app"
hosts = ["localhost"]
path_prefix = "/app"
upstream = "echo"
access = "authenticated"
[[route]]
name = "other"
hosts = ["other.localhost"]
path_prefix = "/"
upstream = "echo"
access = "authenticated"
"""


class Chromium(Topic):
    programs = ("chromium", "chromedriver")

    @classmethod
    def begin(cls):
        if importlib.util.find_spec("selenium") is None:
            raise unittest.SkipTest("the Python package selenium is missing")
        cls.echo = cls.keep(Echo())
        routes = ROUTES.format(url=cls.echo.url)
        # The shortest life that there is, for one test waits for its end.
        accounts = 'access_ttl = "10s"\nlogin_limit = { per_ip = "1000/1s", per_account = "1000/1s" }'
        cls.gateway = cls.keep(
            Gateway(cls.folder, routes, users={"alice": ["clerk"]}, accounts=accounts, port=free_port())
        )
        cls.url = cls.gateway.url
        cls.other = cls.url.replace("localhost", "other.localhost")

    def setUp(self):
        self.browser = self.open_browser()
        self.echo.seen.clear()

    def open_browser(self):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        folder = self.folder / f"profile-{self.id().rpartition('.')[2]}"
        for word in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "disable-dev-shm-usage",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "ignore-certificate-errors",
            f"user-data-dir={folder}",
        ):
            options.add_argument(f"--{word}")
        service = webdriver.ChromeService(executable_path="/usr/bin/chromedriver")
        browser = webdriver.Chrome(options=options, service=service)
        self.addCleanup(browser.quit)
        browser.set_page_load_timeout(PATIENCE)
        return browser

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def fill_in(self, password=PASSWORD):
        name = self.find("#username")
        name.clear()
        name.send_keys("alice")
        self.find("#password").send_keys(password)
        self.find("button").click()

    def arrives(self, url):
        eventually(f"the browser is at {url}, not {self.browser.current_url}", lambda: self.browser.current_url == url)

    def is_at(self, title):
        eventually(f"the page {title!r}", lambda: self.browser.title.startswith(title))

    def sign_in(self, url):
        self.browser.get(url)
        self.is_at("Sign in")
        self.fill_in()
        self.arrives(url)

    def test_signs_in_and_comes_back_to_the_page(self):
        self.browser.get(f"{self.url}/app?a=b")
        self.is_at("Sign in")
        self.assertEqual(self.echo.seen, [])
        self.fill_in("wrong, and long enough")
        eventually("an error", lambda: "wrong" in self.find("[role=alert]").text)
        self.fill_in()
        self.arrives(f"{self.url}/app?a=b")
        self.assertIn("alice", str(self.echo.seen))
        self.assertNotIn("__Host-portcullis", str(self.echo.seen))

    def test_an_expired_session_is_renewed_behind_a_link_of_another_site(self):
        self.sign_in(f"{self.url}/app")
        self.expire()
        self.browser.get(f'data:text/html,<a href="{self.url}/app?from=elsewhere">go</a>')
        self.find("a").click()
        self.arrives(f"{self.url}/app?from=elsewhere")
        self.assertTrue(any("from=elsewhere" in str(seen) for seen in self.echo.seen))

    def test_one_sign_in_opens_another_host_and_its_end_ends_both(self):
        self.sign_in(f"{self.other}/page")
        self.browser.get(f"{self.url}/app")
        self.arrives(f"{self.url}/app")
        self.browser.get(f"{self.url}/auth/account")
        self.is_at("Your account")
        self.find("button.danger").click()
        self.is_at("You are signed out")
        for url in (f"{self.url}/app", f"{self.other}/page"):
            self.browser.get(url)
            self.is_at("Sign in")

    def test_pages_run_no_script_and_break_no_policy(self):
        self.sign_in(f"{self.url}/app")
        for path in ("/auth/account", "/auth/logout", "/nowhere"):
            self.browser.get(self.url + path)
            colour = self.find("main").value_of_css_property("background-color")
            self.assertEqual(colour, "rgba(255, 255, 255, 1)", "the style sheet is not applied")
        log = [line for line in self.browser.get_log("browser") if "Content Security Policy" in line["message"]]
        self.assertEqual(log, [])

    def expire(self):
        """Waits until the browser has let its session cookie go."""

        def is_gone():
            return all(cookie["name"] != "__Host-portcullis-session" for cookie in self.browser.get_cookies())

        self.assertFalse(is_gone())
        eventually("the session cookie expires", is_gone)


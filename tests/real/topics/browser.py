"""Chromium: signing in, silent renewal, several hosts, the account page. What only a browser decides is decided here."""

# Proves: AUTH-6, AUTH-9, RST-3, SESS-5, SESS-6, URI-6

import importlib.util
import re
import unittest

from frame.chromium import open_browser
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
[mail]
from = "Gate <no-reply@example.com>"
spool = "data/mail"
"""
NEW = "another horse battery staple"


class Chromium(Topic):
    programs = ("chromium", "chromedriver")

    @classmethod
    def begin(cls):
        if importlib.util.find_spec("selenium") is None:
            raise unittest.SkipTest("the Python package selenium is missing")
        cls.echo = cls.keep(Echo())
        routes = ROUTES.format(url=cls.echo.url)
        # The shortest life that there is, for one test waits for its end.
        accounts = """access_ttl = "10s"
registration = "open"
login_limit = { per_ip = "1000/1s", per_account = "1000/1s" }"""
        cls.gateway = cls.keep(
            Gateway(cls.folder, routes, users={"alice": ["clerk"], "carol": [], "dave": []}, accounts=accounts, port=free_port())
        )
        cls.url = cls.gateway.url
        cls.other = cls.url.replace("localhost", "other.localhost")

    def setUp(self):
        self.browser = self.open_browser()
        self.echo.seen.clear()

    def open_browser(self, preferences=None):
        kind = "changed" if preferences else "profile"
        profile = self.folder / f"{kind}-{self.id().rpartition('.')[2]}"
        browser = open_browser(profile, words=("disable-quic", "ignore-certificate-errors"), preferences=preferences)
        self.addCleanup(browser.quit)
        browser.set_page_load_timeout(PATIENCE)
        return browser

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def fill_in(self, password=PASSWORD, user="alice"):
        name = self.find("#username")
        name.clear()
        name.send_keys(user)
        self.find("#password").send_keys(password)
        self.find("button").click()

    def arrives(self, url):
        eventually(f"the browser is at {url}, not {self.browser.current_url}", lambda: self.browser.current_url == url)

    def is_at(self, title):
        eventually(f"the page {title!r}", lambda: self.browser.title.startswith(title))

    def says(self, words):
        """Waits for a message. While one page takes the place of another there is none, or one that goes."""
        exceptions = importlib.import_module("selenium.common.exceptions")
        gone = (exceptions.NoSuchElementException, exceptions.StaleElementReferenceException)

        def is_there():
            try:
                return words in self.find("[role=status], [role=alert]").text
            except gone:
                return False
            except exceptions.WebDriverException as error:
                # The driver has no name of its own for an element whose page goes while it is read.
                if "does not belong to the document" in str(error):
                    return False
                raise

        eventually(f"the words {words!r}", is_there)

    def link(self, to, path):
        """Waits for a mail to an address with a link to this path; gives the link, at the gateway's own port."""

        links = []

        def is_there():
            for mail in (self.gateway.folder / "data" / "mail").glob("*.eml"):
                text = mail.read_text(encoding="utf-8")
                if f"To: {to}\n" in text:
                    links.extend(re.findall(rf"^https://\S+{re.escape(path)}\?token=\S+$", text, re.MULTILINE))
            return links

        eventually(f"a mail to {to}", is_there)
        return links[0]

    def sign_in(self, url, user="alice"):
        self.browser.get(url)
        self.is_at("Sign in")
        self.fill_in(user=user)
        self.arrives(url)

    def test_signs_in_and_comes_back_to_the_page(self):
        self.browser.get(f"{self.url}/app?a=b")
        self.is_at("Sign in")
        self.assertEqual(self.echo.seen, [])
        self.fill_in("wrong, and long enough")
        self.says("wrong")
        self.fill_in()
        self.arrives(f"{self.url}/app?a=b")
        self.assertIn("alice", str(self.echo.seen))
        self.assertNotIn("__Host-portcullis", str(self.echo.seen))

    def test_without_cookies_a_right_password_is_answered_with_what_is_missing(self):
        refuses_cookies = {"profile.default_content_setting_values.cookies": 2}
        self.browser = self.open_browser(refuses_cookies)
        for url in (f"{self.url}/app", f"{self.other}/page"):
            self.browser.get(url)
            self.is_at("Sign in")
            self.fill_in()
            self.says("keeps no cookies of this site")
        self.assertEqual(self.echo.seen, [])

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

    def test_a_forgotten_password_is_reset_by_the_mail(self):
        self.sign_in(f"{self.url}/app", "carol")
        self.browser.delete_all_cookies()
        self.browser.get(f"{self.url}/auth/login")
        self.find("a[href$='/password/forgot']").click()
        self.is_at("Forgot your password?")
        self.find("#email").send_keys("carol@example.com")
        self.find("button").click()
        self.is_at("Look into your mail")
        self.browser.get(self.link("carol@example.com", "/auth/password/reset"))
        self.is_at("Choose a new password")
        self.find("#new_password").send_keys("passwordpassword")
        self.find("button").click()
        self.says("first that are tried")
        self.find("#new_password").send_keys(NEW)
        self.find("button").click()
        self.is_at("Sign in")
        self.says("Your password was changed.")
        self.assertNotIn("token", self.browser.current_url)
        self.fill_in(user="carol")
        self.says("wrong")
        self.fill_in(NEW, "carol")
        self.is_at("Your account")

    def test_the_password_is_changed_on_the_account_page(self):
        self.sign_in(f"{self.url}/app", "dave")
        self.browser.get(f"{self.url}/auth/account")
        for current, words in (("wrong horse battery", "current password is wrong"), (PASSWORD, "was changed")):
            self.find("#current_password").send_keys(current)
            self.find("#new_password").send_keys(NEW)
            self.find("form.change button").click()
            self.says(words)
        self.find("button.danger").click()
        self.is_at("You are signed out")
        self.browser.get(f"{self.url}/app")
        self.is_at("Sign in")
        self.fill_in(user="dave")
        self.says("wrong")
        self.fill_in(NEW, "dave")
        self.arrives(f"{self.url}/app")

    def test_a_registration_is_an_account_once_its_address_is_proved(self):
        self.browser.get(f"{self.url}/auth/login")
        self.find("a[href$='/register']").click()
        self.is_at("Create an account")
        for name, words in (("e e", "A user name has"), ("erin", None)):
            for field, value in (("username", name), ("email", "erin@example.com"), ("password", PASSWORD)):
                self.find(f"#{field}").clear()
                self.find(f"#{field}").send_keys(value)
            self.find("button").click()
            if words:
                self.says(words)
        self.is_at("Look into your mail")
        link = self.link("erin@example.com", "/auth/register/verify")
        self.browser.get(f"{self.url}/app")
        self.fill_in(user="erin")
        self.says("wrong")
        self.browser.get(link)
        self.is_at("Confirm your account")
        self.find("#password").send_keys(PASSWORD)
        self.find("button").click()
        self.says("Your account is ready.")
        self.fill_in(user="erin")
        self.is_at("Your account")

    def test_pages_run_no_script_and_break_no_policy(self):
        self.sign_in(f"{self.url}/app")
        links = ("/auth/password/reset?token=" + "A" * 43, "/auth/register/verify?token=" + "A" * 43)
        for path in ("/auth/account", "/auth/logout", "/nowhere", "/auth/password/forgot", "/auth/register", *links):
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


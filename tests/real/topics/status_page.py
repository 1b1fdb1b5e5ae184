"""Chromium: the status page. Values arrive by themselves, its policy of content holds, and it is whole without scripts."""

# Proves: LOG-2, LOG-3

import importlib.util
import json
import unittest
import urllib.error
import urllib.request

from frame.chromium import open_browser
from frame.echo import Echo
from frame.gateway import Gateway, bearer
from frame.process import PATIENCE, eventually
from frame.runner import Topic

ROUTES = """
[[upstream]]
name = "echo"
servers = ["{url}"]
[[route]]
name = "app"
path_prefix = "/app"
upstream = "echo"
access = "authenticated"
[[route]]
name = "clerks"
path_prefix = "/clerks"
upstream = "echo"
access = "authenticated"
require = {{ roles = ["clerk"] }}
"""
HOSTILE = "<img src=x onerror=document.title='taken'>"


class StatusPage(Topic):
    programs = ("chromium", "chromedriver")

    @classmethod
    def begin(cls):
        if importlib.util.find_spec("selenium") is None:
            raise unittest.SkipTest("the Python package selenium is missing")
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), users={"alice": []}))
        cls.page = f"http://127.0.0.1:{cls.gateway.admin_port}/status"

    def open_browser(self, scripts=True):
        browser = open_browser(
            self.folder / f"profile-{self.id().rpartition('.')[2]}",
            preferences=None if scripts else {"profile.managed_default_content_settings.javascript": 2},
            capabilities={"goog:loggingPrefs": {"browser": "ALL"}},
        )
        self.addCleanup(browser.quit)
        browser.set_page_load_timeout(PATIENCE)
        return browser

    def ask(self, path, user=None, **claims):
        fields = {"Authorization": bearer(user, **claims)} if user else {}
        request = urllib.request.Request(self.gateway.url + path, headers=fields)
        try:
            with urllib.request.urlopen(request, context=self.gateway.tls()) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    def test_values_arrive_and_the_policy_of_content_holds(self):
        browser = self.open_browser()
        browser.get(self.page)
        text = lambda id: browser.find_element("id", id).text
        eventually("the page is live", lambda: text("link-state") == "live")
        self.assertNotIn("<img", text("refusals"))
        self.assertEqual(self.ask("/app/x", "alice"), 200)
        self.assertEqual(self.ask("/clerks/x", HOSTILE), 403)
        eventually("the refusal", lambda: HOSTILE in text("refusals"))
        eventually("the decision", lambda: "role_missing" in text("decisions"))
        eventually("the route's count", lambda: any(line.startswith("app ") and line.endswith(" 1") for line in text("routes").splitlines()))
        self.assertTrue(browser.title.startswith("Status"), browser.title)
        self.assertEqual(browser.find_elements("tag name", "img"), [])
        # A line of a plot is there, and the page did nothing that its policy forbids.
        eventually("a line", lambda: len(browser.find_element("css selector", "#plots path.line.a").get_attribute("d")) > 10)
        self.assertEqual(browser.get_log("browser"), [])
        # What is not of the page's own files does not run.
        browser.execute_script(
            "document.body.insertAdjacentHTML('beforeend', \"<img src=x onerror='document.title=1'>\");"
            "const s = document.createElement('script'); s.textContent = 'document.title = 2'; document.body.append(s);"
        )
        refused = []
        eventually("the browser's refusals", lambda: refused.extend(browser.get_log("browser")) or len(refused) >= 2)
        self.assertTrue(browser.title.startswith("Status"), browser.title)
        self.assertTrue(all("Content Security Policy" in entry["message"] for entry in refused), refused)

    def test_it_can_be_held_still(self):
        browser = self.open_browser()
        browser.get(self.page)
        text = lambda id: browser.find_element("id", id).text
        eventually("the page is live", lambda: text("link-state") == "live")
        browser.find_element("id", "pause").click()
        held = text("now")
        self.assertEqual(text("link-state"), "paused")
        self.ask("/nowhere")
        eventually("the counter", lambda: "route_not_found" in self.status())
        self.assertEqual(text("now"), held)
        browser.find_element("id", "pause").click()
        eventually("the page goes on", lambda: text("now") != held and "route_not_found" in text("decisions"))

    def status(self):
        with urllib.request.urlopen(self.page + ".json") as answer:
            return str(json.load(answer)["decisions"])

    def test_it_is_whole_without_scripts(self):
        browser = self.open_browser(scripts=False)
        browser.get(self.page)
        text = lambda id: browser.find_element("id", id).text
        self.assertIn("authenticated", text("routes"))
        self.assertFalse(browser.find_element("id", "link").is_displayed())
        before = text("now")
        self.assertEqual(self.ask("/clerks/y", "nobody"), 403)

        def shows():
            browser.refresh()
            return "/clerks/y" in text("refusals") and text("now") != before

        eventually("a refresh shows new values", shows)

    def test_it_fits_a_phone(self):
        browser = self.open_browser()
        for width in (360, 390, 768, 1366):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(self.page)
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            self.assertLessEqual(wide, width, "the page is wider than its window")

    def test_a_page_of_another_name_reaches_nothing(self):
        browser = self.open_browser()
        browser.get(self.page.replace("127.0.0.1", "rebound.localhost"))
        self.assertIn("origin_denied", browser.page_source)


class Exposition(Topic):
    """The metrics, read by the parser of those who scrape them."""

    @classmethod
    def begin(cls):
        if importlib.util.find_spec("prometheus_client") is None:
            raise unittest.SkipTest("the Python package prometheus_client is missing")
        cls.echo = cls.keep(Echo())
        cls.gateway = cls.keep(Gateway(cls.folder, ROUTES.format(url=cls.echo.url), users={"alice": []}))

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway.admin_port}/metrics") as answer:
            self.assertTrue(answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0"))
            return answer.read().decode()

    def test_it_is_openmetrics(self):
        from prometheus_client.openmetrics.parser import text_string_to_metric_families

        request = urllib.request.Request(f"{self.gateway.url}/app", headers={"Authorization": bearer("alice")})
        urllib.request.urlopen(request, context=self.gateway.tls()).close()
        # An answer is counted when the gateway is done with it, which may be after the client is.
        eventually("the request is counted", lambda: 'portcullis_requests_total{' in self.metrics())
        families = list(text_string_to_metric_families(self.metrics()))
        names = {family.name for family in families}
        self.assertEqual(len(names), len(families), "a family is there twice")
        for name in ("requests", "logins", "refreshes", "password_queue", "tls_handshakes", "request_duration_seconds"):
            self.assertIn(f"portcullis_{name}", names)
        self.assertTrue(all(family.documentation for family in families))

"""A headless Chromium that is driven by its own driver."""

WORDS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-dev-shm-usage",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)


def open_browser(profile, words=(), preferences=None, capabilities=None):
    """Opens one with a profile of its own in this folder. The caller quits it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in (*WORDS, *words, f"user-data-dir={profile}"):
        options.add_argument(f"--{word}")
    if preferences:
        options.add_experimental_option("prefs", preferences)
    for name, value in (capabilities or {}).items():
        options.set_capability(name, value)
    service = webdriver.ChromeService(executable_path="/usr/bin/chromedriver")
    return webdriver.Chrome(options=options, service=service)

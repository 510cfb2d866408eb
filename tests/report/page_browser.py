"""A headless Chromium for the tests of the HTML report, and what it asked the network for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PHONE = (390, 844)
DESK = (1400, 900)


class Page:
    """The report in a browser, with the little that the tests do to it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, file: Path, size: tuple[int, int] = DESK, dark: bool = False) -> None:
        """Load the file anew at this size; logs of earlier pages are dropped, nothing is remembered."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(file.as_uri())
        self.run("localStorage.clear(); delete document.documentElement.dataset.theme")

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a function body."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Text of the first such element as shown."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def count(self, selector: str) -> int:
        """How many such elements there are."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def click(self, selector: str) -> None:
        """Click the first such element, as a mouse does."""
        self.driver.find_element("css selector", selector).click()

    def press(self, keys: str) -> None:
        """Press keys where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def picture(self) -> bytes:
        """A PNG of what is in view."""
        return bytes(self.driver.get_screenshot_as_png())

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        wanted = ("Network.requestWillBeSent", "Network.webSocketCreated")
        return [
            message["params"].get("request", message["params"])["url"]
            for message in messages
            if message["method"] in wanted
        ]

    def complaints(self) -> list[str]:
        """What the browser logged: exceptions of the script, breaches of the policy, resources that failed."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def open_browser() -> Iterator[Page]:
    """Start Chromium and its driver; skips the test, with the reason, where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(
            "no Chromium with chromedriver on this machine (Debian: apt-get install chromium chromium-driver)"
        )
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    arguments = [
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
    ]
    for argument in arguments + (["--no-sandbox"] if os.geteuid() == 0 else []):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(service=Service(driver), options=options)
    try:
        yield Page(browser)
    finally:
        browser.quit()

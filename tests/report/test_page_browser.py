"""The HTML report as a person uses it, in headless Chromium: look, click, filter, keyboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from page_browser import DESK, PHONE, Page

from cleaner.report.page_file import write_page
from cleaner.report.run_dir import RunDirectory


@pytest.fixture
def page(browser: Page, report_run: Path) -> Page:
    browser.open(write_page([RunDirectory.open(report_run)]))
    return browser


def brightness(page: Page) -> float:
    """Mean of the page's background, 0 to 255."""
    colour = page.run("return getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


def positions(page: Page) -> str:
    return page.text("#list [aria-selected=true] .row-head") + page.text("#detail .detail-head")


def test_a_report_shows_without_a_complaint_and_asks_for_nothing_but_itself(
    page: Page, report_run: Path
) -> None:
    assert page.picture().startswith(b"\x89PNG")
    assert page.count("#curves svg path.line") >= 6
    assert "40.0 %" in page.text("#runs") and "60.0 %" in page.text("#runs")
    assert page.requests() == [(report_run / "report.html").as_uri()]
    assert page.complaints() == []


def test_a_repair_is_shown_from_what_was_sampled_to_what_is_trained(page: Page) -> None:
    page.click("[data-kind=shallow]")
    shown = page.text("#detail")
    order = ["greatest common divisor", "Shallow repair", "Sampled", "NameError", "Attempt 1", "Attempt 2",
             "accepted", "Decision", "similarity 0.82 ≥ γ 0.5", "turn 1", "import math", "tool", "6"]  # fmt: skip
    place = 0
    for piece in order:
        assert piece in shown[place:], f"{piece} is not shown after {shown[:place][-40:]}"
        place = shown.index(piece, place)
    assert page.run("return document.querySelector('.diff-line.in').innerText").startswith("+")
    assert page.count("#detail .part.grafted.trained") == 1
    assert page.count("#detail .part.sampled.trained") == 2
    assert page.count("#detail .part.untrained") == 0
    assert "47 of 53 trained" in page.text(".ribbon")


def test_every_filter_narrows_the_list_and_reset_takes_it_back(page: Page) -> None:
    page.click("#all")
    everything = page.count("#list .row")
    assert everything == 5
    for select, value, expected in (
        ("phase", "val", 1),
        ("phase", "train", 4),
        ("error", "NameError", 4),
        ("reward", "none", 2),
        ("step", "1", 2),
    ):
        page.run(
            "const s = document.querySelector(`select[name=${arguments[0]}]`); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))",
            select,
            value,
        )
        assert page.count("#list .row") == expected, (select, value)
        page.press("x")
        assert page.count("#list .row") == everything
    for kind, expected in (("repaired", 3), ("shallow", 2), ("deep", 1), ("exhausted", 1), ("clean", 1)):
        page.click(f"[data-kind={kind}]")
        assert page.count("#list .row") == expected, kind
        assert page.text(f"[data-kind={kind}]").split()[-1] == str(expected)
    page.click("#all")
    page.press("/")
    page.press("Seven Bridges")
    assert page.count("#list .row") == 1 and "Seven bridges" in page.text("#detail")
    page.press("xxxx")
    assert page.count("#list .row") == 0 and "No trajectory matches" in page.text("#list")


def test_the_keyboard_does_all_that_the_mouse_does(page: Page) -> None:
    page.press("x")
    first = positions(page)
    page.press("j")
    second = positions(page)
    assert second != first
    page.press("k")
    assert positions(page) == first
    page.press("\ue014")  # right
    assert positions(page) == second
    page.press("\ue012")  # left
    assert positions(page) == first
    page.run("document.getElementById('list').focus()")
    page.press("\ue015\ue015")  # down
    third = positions(page)
    assert third not in (first, second)
    page.press("n")
    assert "repair" in page.run("return document.activeElement.className")
    page.press("?")
    assert page.run("return document.getElementById('keys').open") and "search" in page.text("#keys")
    page.press("\ue00c")  # escape
    assert not page.run("return document.getElementById('keys').open")
    page.press("r")
    assert "<tool_call>" in page.text("#detail") and page.count("#detail .call") == 0


def test_dark_follows_the_system_and_the_switch(page: Page, report_run: Path) -> None:
    assert brightness(page) > 200
    page.click("#theme")
    assert brightness(page) < 60
    page.press("t")
    assert brightness(page) > 200
    page.open(report_run / "report.html", dark=True)
    assert brightness(page) < 60
    page.click("#theme")
    assert brightness(page) > 200


def test_a_phone_shows_the_list_then_the_trajectory_and_nothing_is_wider_than_the_screen(
    page: Page, report_run: Path
) -> None:
    page.open(report_run / "report.html", size=PHONE)
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert page.run("return getComputedStyle(document.getElementById('detail')).display") == "none"
    page.click("#list .row")
    assert "Sampled" in page.text("#detail")
    assert page.run("const d = document.getElementById('detail'); return d.scrollWidth <= d.clientWidth")
    page.click(".back")
    assert page.run("return getComputedStyle(document.getElementById('detail')).display") == "none"


def test_curves_read_out_values_and_runs_can_be_switched_off(browser: Page, two_arms: list[Path]) -> None:
    browser.open(write_page([RunDirectory.open(path) for path in two_arms]), size=DESK)
    assert "3 runs, 2 arms" in browser.text("#title")
    chart = "document.querySelector('.chart')"
    assert browser.run(f"return {chart}.querySelectorAll('.band').length") == 1
    browser.run(f"{chart}.querySelector('.plot').focus()")
    browser.press("\ue014\ue014\ue014")
    tip = browser.text(".chart .tip")
    assert "step 2" in tip and "60.0 %" in tip and "55.0 % to 65.0 %" in tip
    lines = browser.run(f"return {chart}.querySelectorAll('.line[d]').length")
    browser.click("#runs tbody tr:last-child input")
    assert browser.run(f"return {chart}.querySelectorAll('.line[d]').length") < lines
    browser.click("#runs .seeds input")
    assert browser.run(f"return {chart}.querySelectorAll('.band').length") == 0
    assert browser.complaints() == []


def test_what_is_for_reading_has_a_name_for_those_who_cannot_see_it(page: Page) -> None:
    unnamed = page.run(
        "return [...document.querySelectorAll('button, input, select, [role=img], [role=listbox]')].filter(node =>"
        "!(node.getAttribute('aria-label') || node.innerText || (node.labels || []).length))"
        ".map(node => node.outerHTML)"
    )
    assert unnamed == []
    assert page.run("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(page: Page, report_run: Path, dark: bool) -> None:
    page.open(report_run / "report.html", dark=dark)
    pairs: dict[str, Any] = page.run(
        "const style = getComputedStyle(document.documentElement);"
        "return Object.fromEntries(['paper', 'raised', 'sunk', 'ink', 'soft', 'accent', 'accent-tint',"
        "'bad', 'bad-tint',"
        "'warn', 'warn-tint'].map(name => [name, style.getPropertyValue(`--${name}`).trim()]))"
    )

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for text, ground in (
        *(("ink", "paper"), ("ink", "sunk"), ("soft", "paper"), ("soft", "raised"), ("accent", "paper")),
        *(("accent", "accent-tint"), ("bad", "bad-tint"), ("bad", "raised"), ("warn", "warn-tint")),
    ):
        light, deep = sorted((luminance(pairs[text]), luminance(pairs[ground])), reverse=True)
        # The ratio that WCAG 2.2 asks of text, success criterion 1.4.3.
        assert (light + 0.05) / (deep + 0.05) >= 4.5, (text, ground, json.dumps(pairs))

"""What a model writes cannot run in the HTML report, mark it up, leave it, or ask for anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from page_browser import Page

from cleaner.report.page_file import write_page
from cleaner.report.run_dir import RunDirectory

RECORD_FIELDS = ("data_source", "prompt", "uid")


class Canary(BaseHTTPRequestHandler):
    """Notes whoever asks."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def canary() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Canary) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def payload(address: str) -> str:
    return (
        f"</script><script>window.ran=1</script><script src='{address}/s'></script>"
        f"<img src=x onerror='window.ran=2'><img src='{address}/i'><svg onload='window.ran=3'>"
        f"<!--<script> --> <![CDATA[ ]]> <a href='javascript:window.ran=4'>go</a> javascript:window.ran=5 "
        f"<style>@import '{address}/c'; body{{display:none}}</style><link rel=stylesheet href='{address}/l'>"
        f"<iframe srcdoc='<script>parent.ran=6</script>'></iframe><meta http-equiv=refresh content='0;{address}/m'>"
        f"<base href='{address}'><form action='{address}/f'><input name=text></form></textarea></title></style>"
        "{{DATA}} {{SCRIPT}} ${window.ran=7} &lt;b&gt; &#60; \\u003cscript\\u003e "
        "\u202eevil\u2066 \u2028\u2029 \x00\x1b[31m\x07 \ud800 \ufeff \U000e0041 z\u0301\u0301\u0301"
    )


def hostile_record(text: str) -> dict[str, Any]:
    turn = {
        "reasoning": text,
        "call": f"<tool_call>\n{json.dumps({'name': text, 'arguments': {'code': text}})}\n</tool_call>",
        "code": text,
        "outcome": {"status": text, "exception": text, "text": text},
        "similarity": 0.5,
        "tokens": 3,
    }
    return {
        "phase": "train",
        "step": 1,
        "reward": 1.0,
        **dict.fromkeys(RECORD_FIELDS, text),
        "segments": [
            {"origin": origin, "trained": True, "text": text, "tokens": 3}
            for origin in ("sampled", "observation", text, "constructor", "__proto__")
        ],
        "repairs": [
            {"turn": 0, "start": 0, "decision": decision, "ending": text, "similarity": 0.5, "accepted": 0,
             "failed": turn, "attempts": [turn], "after": text}
            for decision in ("deep", text, "constructor", "__proto__")
        ],
        "saar": {"failures": {text: 1}},
    }  # fmt: skip


@pytest.fixture
def hostile_run(tmp_path: Path, canary: str) -> Path:
    """A run in which every text that can come from outside is the payload, its folder's name included."""
    text = payload(canary)
    folder = tmp_path / "<img src=x onerror=window.ran=8>"
    folder.mkdir()
    metrics = {"rollback/triggered": 2, f"rollback/triggered/{text}": 2, "val/accuracy": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "data": metrics}) + "\n")
    (folder / "trajectories.jsonl").write_text(json.dumps(hostile_record(text)) + "\n")
    (folder / "config.yaml").write_text(
        json.dumps(
            {"cleaner": {"seed": text, "strategy": text, "saar": {"gamma": text, "graft_credit": text}}}
        )
    )
    return folder


def test_a_hostile_run_is_shown_as_text_and_does_nothing(
    browser: Page, hostile_run: Path, canary: str
) -> None:
    Canary.asked.clear()
    file = write_page([RunDirectory.open(hostile_run)])
    browser.open(file)
    for keys in ("j", "n", "r", "n", "r", "x"):
        browser.press(keys)
    assert browser.complaints() == []
    assert browser.run("return window.ran") is None
    assert browser.count("script") == 2 and browser.count("style, link") == 2
    assert (
        browser.count("img, iframe, base, object, embed, a[href^=javascript], meta[http-equiv=refresh]") == 0
    )
    shown = browser.text("#detail")
    assert "</script><script>window.ran=1</script>" in shown and "onerror='window.ran=2'" in shown
    for mark in ("\\u202e", "\\u2028", "␀", "␛", "\\ud800"):
        assert mark in shown
    assert not set(shown) & set("\u202e\u2066\u2028\u2029\x00\x1b\x07\ufeff")
    assert browser.requests() == [file.as_uri()]
    assert Canary.asked == []
    assert browser.complaints() == []


def test_even_a_script_that_got_in_could_neither_run_nor_ask(
    browser: Page, hostile_run: Path, canary: str
) -> None:
    Canary.asked.clear()
    browser.open(write_page([RunDirectory.open(hostile_run)]))
    refused = browser.run(
        "try { document.body.innerHTML = '<b>x</b>'; return false } catch (error) { return error instanceof TypeError }"
    )
    assert refused
    browser.run(
        "const image = document.createElement('img'); image.src = arguments[0] + '/image'; document.body.append(image);"
        "const link = document.createElement('link'); link.rel = 'stylesheet'; link.href = arguments[0] + '/style';"
        "document.head.append(link);",
        canary,
    )
    blocked = browser.driver.execute_async_script(
        "const done = arguments[1]; fetch(arguments[0] + '/fetch').then(() => done(false), () => done(true))",
        canary,
    )
    assert blocked
    assert Canary.asked == []

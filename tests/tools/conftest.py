"""A small HTTP server that plays code-judge: what it answers is scripted."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

VERDICT = {
    "sub_id": "1",
    "success": True,
    "run_success": True,
    "cost": 0.01,
    "stdout": "4\n",
    "stderr": "",
    "reason": "",
    "retryable": False,
    "exception": None,
}


@dataclass
class Answer:
    """One scripted answer: `body` may be a dict or raw bytes; `drop` closes the connection without a word."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False


@dataclass
class FakeJudge:
    """`answer` makes the answer to request number n (from 0) with its JSON body."""

    url: str
    answer: Callable[[int, dict[str, Any]], Answer]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def verdict(**changes: Any) -> Answer:
    return Answer({**VERDICT, **changes})


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                number = len(fake.requests)
                fake.requests.append({"path": self.path, **body})
                fake.headers.append(dict(self.headers))
                fake.running += 1
                fake.most_at_once = max(fake.most_at_once, fake.running)
            try:
                answer = fake.answer(number, body)
                time.sleep(answer.delay)
            finally:
                with fake.lock:
                    fake.running -= 1
            if answer.drop:
                self.close_connection = True
                self.connection.close()
                return
            if isinstance(answer.body, dict) and "sub_id" in answer.body:
                answer.body["sub_id"] = body.get("sub_id")  # a result says whose it is
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(data)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ValueError, OSError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake = FakeJudge(f"http://127.0.0.1:{server.server_address[1]}", lambda number, body: verdict())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def answers() -> Any:
    """The makers of answers: `answers.verdict(**changes)`, `answers.Answer(...)`."""
    import types

    return types.SimpleNamespace(verdict=verdict, Answer=Answer)

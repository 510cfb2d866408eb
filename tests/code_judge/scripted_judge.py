"""A server on a real socket that plays code-judge and, where a script says so, misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

VERDICT = {
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
class Request:
    """A request as it came; `number` counts them from 0."""

    number: int
    path: str
    headers: dict[str, str]
    content: Any
    connection: int

    @property
    def submissions(self) -> list[dict[str, Any]]:
        """Those of a batch, or the one."""
        return self.content.get("submissions", [self.content])


@dataclass
class Answer:
    """What is sent.

    `body` is JSON, or bytes as they are; `drop` closes the connection after so many bytes of the answer;
    `trickle` sends a byte in so many seconds.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: int | None = None
    trickle: float = 0.0


def verdict(submission: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The result of a submission that went well, but for `changes`."""
    return {"sub_id": submission.get("sub_id"), **VERDICT, **changes}


def answer_with(request: Request, results: list[dict[str, Any]], **how: Any) -> Answer:
    """The answer that holds the results, in the form that the request wants."""
    return Answer(
        {"sub_id": "b", "results": results} if "submissions" in request.content else results[0], **how
    )


def well(request: Request, **how: Any) -> Answer:
    """All went well."""
    return answer_with(request, [verdict(submission) for submission in request.submissions], **how)


class ScriptedJudge:
    """The server; `script` makes each answer."""

    def __init__(self) -> None:
        self.script: Callable[[Request], Answer] = well
        self.requests: list[Request] = []
        self.programs = 0
        self.most_programs = 0
        self.left = 0  # clients that closed the connection before they had their answer
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        number = self.connections
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._one(number, reader, writer):
                pass
        writer.close()

    async def _one(self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(
            len(self.requests), head.split()[1], headers, json.loads(body or b"null"), connection
        )
        self.requests.append(request)
        programs = len(request.submissions) if body else 0
        self.programs += programs
        self.most_programs = max(self.most_programs, self.programs)
        try:
            answer = self.script(request)
            if answer.delay:
                gone = asyncio.create_task(reader.read(1))
                done, _ = await asyncio.wait([gone], timeout=answer.delay)
                gone.cancel()
                if done:
                    self.left += 1
                    return False
        finally:
            self.programs -= programs
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        fields = {"Content-Type": "application/json", "Content-Length": str(len(data)), **answer.headers}
        top = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        whole = f"HTTP/1.1 {answer.status} X\r\n{top}\r\n".encode() + data
        if answer.drop is not None:
            writer.write(whole[: answer.drop])
            return False
        for piece in [whole] if not answer.trickle else [bytes([byte]) for byte in whole]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(answer.trickle)
        return True


@contextlib.contextmanager
def scripted_judge() -> Iterator[ScriptedJudge]:
    """A running scripted judge, in a thread with an event loop of its own."""
    judge = ScriptedJudge()
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(judge.serve, "127.0.0.1", 0)
        judge.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield judge
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)

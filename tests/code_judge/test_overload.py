"""Whatever comes at once is served or told to come back; nobody waits for somebody else's batch."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit


async def _post(judge: Any, path: str, content: Any) -> tuple[int, dict[str, str], Any]:
    """One POST on a connection of its own: status, headers, JSON."""
    parts = urlsplit(judge.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    answer = json.loads(await reader.readexactly(int(headers["content-length"])))
    writer.close()
    return int(status.split()[1]), headers, answer


async def _many(judge: Any, count: int) -> list[tuple[int, dict[str, str], Any]]:
    posts = (_post(judge, "/run", {"solution": f"print({number})"}) for number in range(count))
    return await asyncio.gather(*posts)


def test_256_at_once_are_all_served(judge: Any) -> None:
    answers = asyncio.run(_many(judge, 256))
    assert [(status, answer["stdout"]) for status, _, answer in answers] == [
        (200, f"{n}\n") for n in range(256)
    ]


def test_1500_at_once_are_served_or_told_at_once_when_to_come_back(start_judge: Any) -> None:
    judge = start_judge("--workers", "2", MAX_QUEUE_LENGTH="400")
    judge.prints("print(1)")
    answers = asyncio.run(_many(judge, 1500))
    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) == {200, 429} and statuses[200] >= 400, statuses
    for number, (status, headers, answer) in enumerate(answers):
        if status == 200:
            assert answer["stdout"] == f"{number}\n", answer
        else:
            assert int(headers["retry-after"]) >= 1


def test_nobody_waits_for_somebody_elses_batch(judge: Any) -> None:
    batch = {"submissions": [{"solution": "import time; time.sleep(0.05)"}] * 120}
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda path=path: answers.append(judge.post(path, batch)), daemon=True)
        for path in ("/run/batch", "/run/long-batch")
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    slowest = 0.0
    for _ in range(3):
        started = time.monotonic()
        assert judge.prints("print(1)") == "1\n"
        slowest = max(slowest, time.monotonic() - started)
    assert not answers, "the batches were over too early to tell"
    assert slowest < 3.5  # 64 jobs of a batch at most are ahead, of 50 ms, on two workers
    for thread in threads:
        thread.join(60)
    assert [len(answer["results"]) for answer in answers] == [120, 120]
    assert all(result["run_success"] for answer in answers for result in answer["results"])


def test_two_batches_progress_together(judge: Any) -> None:
    ends: dict[str, float] = {}

    def run(name: str, count: int) -> None:
        batch = {"submissions": [{"solution": "import time; time.sleep(0.02)"}] * count}
        judge.post("/run/batch", batch)
        ends[name] = time.monotonic()

    large = threading.Thread(target=run, args=("large", 240))
    large.start()
    time.sleep(0.2)
    run("small", 20)
    large.join(60)
    assert ends["small"] < ends["large"]

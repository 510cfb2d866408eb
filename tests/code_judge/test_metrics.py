"""`GET /metrics`: sums of the whole service, whichever web process answers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from judge_service import Judge, eventually, running
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _page(judge: Judge) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(judge.url + "/metrics", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return answer.read().decode()


def _samples(judge: Judge) -> Samples:
    return {
        (sample.name.removeprefix("code_judge_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(_page(judge))
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("counted")
    with running(
        folder, "--workers", "2", "--web", "2", PRELOAD="json", MAX_EXECUTION_TIME="1", MAX_QUEUE_LENGTH="12"
    ) as judge:
        yield judge


def _in_time(counted: Judge, name: str, value: float, **labels: str) -> bool:
    return eventually(lambda: _value(_samples(counted), name, **labels) == value, 10)


def test_every_job_and_request_is_counted_once_over_all_web_processes(counted: Judge) -> None:
    for _ in range(20):  # each on a connection of its own: both web processes get some
        counted.prints("print(1)")
    counted.run("1 / 0")
    counted.run("while True: pass")
    counted.run("print(1)", options={"timeout": "never"})
    counted.post("/judge/batch", {"submissions": [{"solution": "print(1)"}] * 7})
    assert counted.request("POST", "/run", b"{}")[0] == 422
    assert counted.request("GET", "/nowhere/at/all")[0] == 404
    jobs = {"success": 27, "failed": 1, "worker_timeout": 1, "invalid_input": 1}
    requests = {("/run", "200"): 23, ("/run", "422"): 1, ("/judge/batch", "200"): 1}
    samples: Samples = {}

    def seen() -> tuple[dict[str, float], dict[tuple[str, str], float]]:
        nonlocal samples
        samples = _samples(counted)
        return (
            {name: _value(samples, "jobs_total", type="python", outcome=name) for name in jobs},
            {
                key: _value(samples, "requests_total", method="POST", route=key[0], status=key[1])
                for key in requests
            },
        )

    assert eventually(lambda: seen() == (jobs, requests), 10), seen()
    assert not [labels for name, labels in samples if "/nowhere/at/all" in str(labels)], "labels are few"


def test_histograms_hold_every_job_and_its_seconds(counted: Judge) -> None:
    def ran() -> tuple[float, float]:
        samples = _samples(counted)
        count = _value(samples, "run_seconds_count", type="python")
        return count, _value(samples, "run_seconds_sum", type="python")

    counted.prints("print(1)")
    time.sleep(1.5)
    count, seconds = ran()
    for _ in range(3):
        counted.prints("import time; time.sleep(0.2)")
    assert eventually(lambda: ran()[0] >= count + 3, 10)
    assert 0.6 <= ran()[1] - seconds < 3
    samples = _samples(counted)
    buckets = sorted(
        (float(dict(labels)["le"]), value)
        for (name, labels), value in samples.items()
        if name == "wait_seconds_bucket"
    )
    assert [value for _, value in buckets] == sorted(value for _, value in buckets), "cumulative"
    assert buckets[-1][1] == _value(samples, "wait_seconds_count") > 0


def test_gauges_show_workers_and_the_jobs_that_run(counted: Judge) -> None:
    samples = _samples(counted)
    assert _value(samples, "workers") == 2 and _value(samples, "redis_up") == 1
    assert [dict(labels)["version"] for name, labels in samples if name == "build_info"]
    items = [{"solution": "import time; time.sleep(0.4)"}] * 6
    thread = threading.Thread(target=lambda: counted.post("/run/batch", {"submissions": items}))
    thread.start()
    try:
        assert eventually(lambda: _value(_samples(counted), "running_jobs") == 2, 5)
        assert _value(_samples(counted), "queue_jobs") > 0
    finally:
        thread.join()
    assert eventually(lambda: _value(_samples(counted), "running_jobs") == 0, 5)


def test_overload_is_counted(counted: Judge) -> None:
    items = [{"solution": "import time; time.sleep(0.05)"}] * 60
    thread = threading.Thread(target=lambda: counted.post("/run/long-batch", {"submissions": items}))
    thread.start()
    told = 0

    def refused() -> bool:
        nonlocal told
        told += counted.request("POST", "/run", b'{"solution": ""}')[0] == 429
        return told > 2

    try:
        assert eventually(refused, 5)
    finally:
        thread.join()
    assert _in_time(counted, "requests_total", told, method="POST", route="/run", status="429")


def test_a_restarted_worker_is_counted_and_sums_outlive_a_web_process(counted: Judge) -> None:
    time.sleep(1.2)
    before = _value(_samples(counted), "jobs_total", type="python", outcome="success")
    os.kill(counted.worker_pids()[0], signal.SIGKILL)
    assert eventually(lambda: _value(_samples(counted), "worker_restarts_total") >= 1, 10)
    for pid in counted.web_pids():
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        with contextlib.suppress(OSError):
            return _value(_samples(counted), "jobs_total", type="python", outcome="success") >= before > 0
        return False

    assert eventually(back, 15)


def test_a_page_comes_without_redis_too(start_judge: Callable[..., Judge]) -> None:
    judge = start_judge("--workers", "1")
    judge.process.send_signal(signal.SIGSTOP)  # or it would start the server again
    try:
        server = next(pid for pid, line in judge.processes().items() if "valkey-server" in line)
        os.kill(server, signal.SIGKILL)
        samples = _samples(judge)
        assert _value(samples, "redis_up") == 0
        assert not any(name == "jobs_total" for name, _ in samples), "unknown is not zero"
        assert judge.request("GET", "/ready")[0] == 503
    finally:
        judge.process.send_signal(signal.SIGCONT)

"""What the service counts, and `GET /metrics` in Prometheus' text format.

Each process adds up its own counts and hands the increase to one hash in Redis once a second, so that the
sums are of the whole service, whichever of its web processes is asked, on however many machines, and outlive
each of them. A process that is killed takes at most a second of counts along.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import redis

from app import __version__
from app.job import Keys

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FLUSH_EVERY = 1.0
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_PREFIX = "code_judge_"

# name: (label names, meaning)
COUNTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "requests": (("method", "route", "status"), "HTTP requests answered; status 499: the client left before"),
    "jobs": (("type", "outcome"), "jobs answered, by what came of them"),
    "retryable": (("type",), "jobs answered as retryable: the outcome is not the program's fault"),
    "cancelled": ((), "jobs given up because their client left"),
    "worker_restarts": ((), "workers that ended and were started again"),
    "nursery_restarts": ((), "nurseries (parents of the sandboxes) that ended and were started again"),
    "sandboxes_lost": ((), "sandboxes that failed under a program"),
}
HISTOGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "wait_seconds": ((), "seconds from a job's acceptance to its answer, without those that it ran"),
    "run_seconds": (("type",), "seconds that programs ran"),
    "request_seconds": (("route",), "seconds from a request's head to the end of its answer, POSTs only"),
}


class Tally:
    """Counts of one process that are not handed over yet."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], float] = {}

    def count(self, name: str, *labels: str) -> None:
        """Add one to a counter."""
        key = (name, *labels)
        self._counts[key] = self._counts.get(key, 0) + 1

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Add a value to a histogram."""
        place = bisect.bisect_left(_BUCKETS, seconds)
        counts = self._counts
        bucket = (name, *labels, f"le{place}")
        counts[bucket] = counts.get(bucket, 0) + 1
        total = (name, *labels, "sum")
        counts[total] = counts.get(total, 0.0) + seconds

    def job(self, kind: str, answer: Mapping[str, Any]) -> None:
        """Count a job that has its answer (the fields of a Result)."""
        outcome = answer["reason"] or ("success" if answer["success"] else "failed")
        self.count("jobs", kind, outcome)
        if answer["retryable"]:
            self.count("retryable", kind)
        if answer["cost"]:
            self.observe("run_seconds", answer["cost"], kind)

    def take(self) -> dict[tuple[str, ...], float]:
        """All counts since the last call; they are this tally's no more."""
        counts, self._counts = self._counts, {}
        return counts

    def give_back(self, counts: Mapping[tuple[str, ...], float]) -> None:
        """Undo `take`, after a hand-over that failed."""
        for key, value in counts.items():
            self._counts[key] = self._counts.get(key, 0) + value


def add_to(pipe: Any, keys: Keys, counts: Mapping[tuple[str, ...], float]) -> None:
    """Add counts to the service's sums, by a Redis pipeline, synchronous or not."""
    for key, value in counts.items():
        field = "|".join(key)
        if isinstance(value, int):
            pipe.hincrby(keys.metrics, field, value)
        else:
            pipe.hincrbyfloat(keys.metrics, field, value)


class Metrics:
    """The tally of a web process, on its way to Redis."""

    def __init__(self, tally: Tally, server: Any, keys: Keys) -> None:
        self.tally = tally
        self._redis = server
        self._keys = keys

    async def keep_flushing(self) -> None:
        """Hand over once a second, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_EVERY)
            with contextlib.suppress(redis.RedisError, OSError):
                await self.flush()

    async def flush(self) -> None:
        """Hand over now. Raises redis.RedisError; nothing is forgotten then."""
        counts = self.tally.take()
        if not counts:
            return
        pipe = self._redis.pipeline(transaction=False)
        add_to(pipe, self._keys, counts)
        try:
            await pipe.execute()
        except BaseException:
            self.tally.give_back(counts)
            raise

    async def text(self, status: Mapping[str, Any] | None, limits: Mapping[str, float]) -> bytes:
        """The page. `status` is the gateway's, None if Redis is away: then the sums are missing, not zero."""
        sums: dict[bytes, bytes] | None = None
        if status is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                await self.flush()
                sums = await self._redis.hgetall(self._keys.metrics)
        return _page(sums, status, limits)


def _page(
    sums: Mapping[bytes, bytes] | None, status: Mapping[str, Any] | None, limits: Mapping[str, float]
) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest  # not at start-up: 30 ms

    class Page:
        def collect(self) -> Iterator[Any]:
            yield from _gauges(status, limits)
            if sums is not None:
                yield from _families(_parsed(sums))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page())  # type: ignore[arg-type]
    return generate_latest(registry)


def _gauges(status: Mapping[str, Any] | None, limits: Mapping[str, float]) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    facts = {"version": __version__, "python": platform.python_version()}
    yield InfoMetricFamily(_PREFIX + "build", "version of the service", value=facts)
    up = 0 if status is None else 1
    yield GaugeMetricFamily(_PREFIX + "redis_up", "1 if Redis answers this process", value=up)
    if status is not None:
        yield GaugeMetricFamily(_PREFIX + "queue_jobs", "jobs that wait for a worker", value=status["queue"])
        yield GaugeMetricFamily(_PREFIX + "running_jobs", "jobs with a worker", value=status["running"])
        yield GaugeMetricFamily(_PREFIX + "workers", "live workers", value=status["num_workers"])
    for name, value in limits.items():
        yield GaugeMetricFamily(_PREFIX + name, f"the setting {name.upper()}", value=value)


def _parsed(sums: Mapping[bytes, bytes]) -> dict[str, list[tuple[list[str], float]]]:
    found: dict[str, list[tuple[list[str], float]]] = {}
    for field, value in sorted(sums.items()):
        name, *rest = field.decode().split("|")
        found.setdefault(name, []).append((rest, float(value)))
    return found


def _families(found: Mapping[str, list[tuple[list[str], float]]]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    for name, (labels, meaning) in COUNTERS.items():
        counter = CounterMetricFamily(_PREFIX + name, meaning, labels=labels)
        for values, value in found.get(name, [] if labels else [([], 0.0)]):
            counter.add_metric(values, value)
        yield counter
    for name, (labels, meaning) in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(_PREFIX + name, meaning, labels=labels)
        series: dict[tuple[str, ...], dict[str, float]] = {}
        for values, value in found.get(name, []):
            series.setdefault(tuple(values[:-1]), {})[values[-1]] = value
        for values_of, parts in series.items():
            histogram.add_metric(values_of, _cumulated(parts), parts.get("sum", 0.0))
        yield histogram


def _cumulated(parts: Mapping[str, float]) -> list[tuple[str, float]]:
    """[(upper bound, count up to it)], the last one +Inf."""
    bounds: Iterable[str] = (*map(str, _BUCKETS), "+Inf")
    total, rows = 0.0, []
    for place, bound in enumerate(bounds):
        total += parts.get(f"le{place}", 0.0)
        rows.append((bound, total))
    return rows

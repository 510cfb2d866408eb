"""The HTTP side: `uvicorn app.main:app`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
import redis
from fastapi import Body, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse

from app import __version__, examples, logs, metrics, run_code, welcome
from app.access import Access, note_sub_id
from app.bearer import BearerToken
from app.bodylimit import BodyLimit
from app.drain import Drain
from app.gateway import Gateway, Overloaded
from app.intake import accept
from app.leaving import Leaving
from app.local_workers import local_workers
from app.schema import (
    BatchResult,
    BatchSubmission,
    JudgeBatchResult,
    JudgeResult,
    Problem,
    Result,
    Submission,
)
from app.settings import SettingsError, load

try:
    settings = load()
except SettingsError as problem:
    sys.exit(f"code-judge: {problem}")


logs.configure(settings, "web")
logs.warn_of_misspelt()
log = logging.getLogger("code-judge.web")
tally = metrics.Tally()
drain = Drain(settings.drain_seconds)
_SOON = {"Retry-After": "1"}
_STATUS_PATIENCE = 5.0  # seconds that /metrics and /ready wait for Redis


@contextlib.asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    gateway = Gateway(settings)
    gateway.tally = tally
    application.state.gateway = gateway
    await gateway.start()
    counted = metrics.Metrics(tally, gateway.redis, gateway.keys)
    application.state.metrics = counted
    flusher = asyncio.create_task(counted.keep_flushing())
    async with local_workers(settings, before_stop=lambda: gateway.quiet(drain.remaining)):
        with drain.on_signals(gateway.give_up):
            logs.event(log, logging.INFO, "web_started", f"web process {os.getpid()} takes requests")
            yield
    flusher.cancel()
    with contextlib.suppress(redis.RedisError, OSError):
        await counted.flush()
    await gateway.stop()
    logs.event(log, logging.INFO, "web_stopped", f"web process {os.getpid()} has answered everything")


async def _gateway(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway


async def _admitted(gateway: Annotated[Gateway, Depends(_gateway)]) -> Gateway:
    try:
        await gateway.admit()
    except Overloaded as error:
        raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from None
    return gateway


app = FastAPI(
    title="code-judge",
    version=__version__,
    description=examples.DESCRIPTION,
    openapi_tags=examples.TAGS,
    lifespan=_lifespan,
)
app.add_middleware(Leaving)  # innermost
app.add_middleware(BodyLimit, limit=settings.max_body << 20)
app.add_middleware(  # outermost
    Access, tally=tally, drain=drain, lines=settings.access_log, warn_strangers=settings.token is None
)
_protected = [] if settings.token is None else [Depends(BearerToken(settings.token))]
_refusals: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "the body is no JSON"},
    413: {"model": Problem, "description": "the body is larger than MAX_BODY"},
    429: {
        "model": Problem,
        "description": "the queue is full: ask again after as many seconds as the header says",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
    },
    503: {
        "model": Problem,
        "description": "the service is stopping: ask again after as many seconds as the header says",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
    },
}
if settings.token is not None:
    _refusals[401] = {"model": Problem, "description": "the token is missing or wrong"}
_unavailable: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "not now"}}
_post: dict[str, Any] = {"dependencies": _protected, "responses": _refusals, "tags": ["programs"]}
_Admitted = Annotated[Gateway, Depends(_admitted)]
_One = Annotated[Submission, Body(openapi_examples=examples.SUBMISSIONS)]
_Several = Annotated[BatchSubmission, Body(openapi_examples=examples.BATCHES)]


app.include_router(run_code.router(tally, **_post))


@app.exception_handler(RequestValidationError)
async def _refuse(request: Request, error: RequestValidationError) -> Response:
    """422 with what was wrong and where, without the input: that may be huge, or no text at all."""
    detail = [{"loc": [*item["loc"]], "msg": item["msg"], "type": item["type"]} for item in error.errors()]
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


@app.exception_handler(Exception)
async def _failed(request: Request, error: Exception) -> Response:
    """500 in the form of all other problems; the log has the traceback."""
    return Response(
        b'{"detail":"an error of the service; its log has more"}', 500, media_type="application/json"
    )


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _without_output(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("stdout", "stderr")}


async def _one(submission: Submission, gateway: Gateway) -> dict[str, Any]:
    note_sub_id(submission.sub_id)
    item = accept(submission, gateway)
    answer = item if isinstance(item, dict) else await gateway.run(item)
    tally.job(submission.type, answer)
    return {"sub_id": submission.name(), **answer}


async def _many(batch: BatchSubmission, gateway: Gateway, long: bool) -> dict[str, Any]:
    note_sub_id(batch.sub_id)
    items = [accept(submission, gateway, long) for submission in batch.submissions]
    answers = await gateway.run_many(items, long)
    for submission, answer in zip(batch.submissions, answers, strict=True):
        tally.job(submission.type, answer)
    results = [{"sub_id": s.name(), **answer} for s, answer in zip(batch.submissions, answers, strict=True)]
    name = (batch.sub_id or str(uuid.uuid4())).encode("utf-8", "replace").decode()
    return {"sub_id": name, "results": results}


async def _many_judged(batch: BatchSubmission, gateway: Gateway, long: bool) -> dict[str, Any]:
    answer = await _many(batch, gateway, long)
    return {**answer, "results": [_without_output(result) for result in answer["results"]]}


@app.get("/", response_class=HTMLResponse, include_in_schema=False)
async def front_page() -> str:
    """What this is and what it answers to; needs no network, unlike /docs."""
    return welcome.page(app.openapi())


@app.get("/ping", tags=["service"])
async def ping() -> str:
    """ "pong", always: the process is alive."""
    return "pong"


@app.get("/status", tags=["service"], responses=_unavailable)
async def status(gateway: Annotated[Gateway, Depends(_gateway)]) -> dict[str, Any]:
    """Jobs that wait (`queue`) and run (`running`), live workers (`num_workers`), what isolates the
    programs, whether the service is stopping (`draining`).
    """
    try:
        return {**await gateway.status(), "version": __version__, "draining": drain.begun}
    except (redis.RedisError, OSError) as error:
        raise HTTPException(503, _redis_is_away(error), _SOON) from None


@app.get("/ready", tags=["service"], responses=_unavailable)
async def ready(gateway: Annotated[Gateway, Depends(_gateway)]) -> str:
    """ "ready" if a program sent now would be run: Redis answers, a worker lives, the service isn't stopping.
    Else 503.
    """
    facts = await _patient_status(gateway)
    if drain.begun:
        raise HTTPException(503, "the service is stopping", _SOON)
    if facts is None:
        raise HTTPException(503, "Redis does not answer", _SOON)
    if not facts["num_workers"]:
        raise HTTPException(503, "no worker is alive", _SOON)
    return "ready"


@app.get(
    "/metrics",
    tags=["service"],
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def prometheus(request: Request, gateway: Annotated[Gateway, Depends(_gateway)]) -> Response:
    """Counts and gauges of the whole service, whichever process answers, for Prometheus."""
    limits = {name: getattr(settings, name) for name in ("max_queue_length", "max_execution_time")}
    page = await request.app.state.metrics.text(await _patient_status(gateway), limits)
    return Response(page, media_type=metrics.CONTENT_TYPE)


async def _patient_status(gateway: Gateway) -> dict[str, Any] | None:
    """The gateway's status; None if Redis is away, or slow."""
    try:
        return await asyncio.wait_for(gateway.status(), _STATUS_PATIENCE)
    except (redis.RedisError, OSError, TimeoutError) as error:
        _redis_is_away(error)
        return None


def _redis_is_away(error: Exception) -> str:
    """What an open GET may tell. The address, for one, is for the log only."""
    logs.event(log, logging.DEBUG, "redis_silent", f"Redis does not answer: {error}")
    return "Redis does not answer"


@app.post("/run", response_model=Result, **_post)
async def run(submission: _One, gateway: _Admitted) -> Response:
    """Run one program; answer with its output."""
    return _json(await _one(submission, gateway))


@app.post("/judge", response_model=JudgeResult, **_post)
async def judge(submission: _One, gateway: _Admitted) -> Response:
    """Run one program; answer without its output."""
    return _json(_without_output(await _one(submission, gateway)))


@app.post("/run/batch", response_model=BatchResult, **_post)
async def run_batch(batch: _Several, gateway: _Admitted) -> Response:
    """Run several programs; each may wait for a worker as long as a single one."""
    return _json(await _many(batch, gateway, long=False))


@app.post("/run/long-batch", response_model=BatchResult, **_post)
async def run_long_batch(batch: _Several, gateway: _Admitted) -> Response:
    """Run many programs, after all other work, however long they wait."""
    return _json(await _many(batch, gateway, long=True))


@app.post("/judge/batch", response_model=JudgeBatchResult, **_post)
async def judge_batch(batch: _Several, gateway: _Admitted) -> Response:
    """/run/batch without output."""
    return _json(await _many_judged(batch, gateway, long=False))


@app.post("/judge/long-batch", response_model=JudgeBatchResult, **_post)
async def judge_long_batch(batch: _Several, gateway: _Admitted) -> Response:
    """/run/long-batch without output."""
    return _json(await _many_judged(batch, gateway, long=True))

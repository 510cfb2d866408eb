"""The HTTP side: `uvicorn app.main:app`."""

from __future__ import annotations

import contextlib
import hmac
import json
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
import redis
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError

from app import __version__
from app.bodylimit import BodyLimit
from app.gateway import Gateway, Overloaded
from app.intake import accept
from app.local_workers import local_workers
from app.schema import BatchResult, BatchSubmission, JudgeBatchResult, JudgeResult, Result, Submission
from app.settings import SettingsError, load

try:
    settings = load()
except SettingsError as problem:
    sys.exit(f"code-judge: {problem}")


@contextlib.asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    gateway = Gateway(settings)
    application.state.gateway = gateway
    await gateway.start()
    async with local_workers(settings):
        yield
    await gateway.stop()


def _authorized(authorization: Annotated[str, Header()] = "") -> None:
    token = settings.code_judge_token
    if token is not None and not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "send the service's token: Authorization: Bearer <CODE_JUDGE_TOKEN>")


def _gateway(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway


async def _admitted(gateway: Annotated[Gateway, Depends(_gateway)]) -> Gateway:
    try:
        await gateway.admit()
    except Overloaded as error:
        raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from None
    return gateway


app = FastAPI(title="code-judge", version=__version__, lifespan=_lifespan)
app.add_middleware(BodyLimit, limit=settings.max_body << 20)
_protected = [Depends(_authorized)]
_Admitted = Annotated[Gateway, Depends(_admitted)]


@app.exception_handler(RequestValidationError)
async def _refuse(request: Request, error: RequestValidationError) -> Response:
    """422 with what was wrong and where, without the input: that may be huge, or no text at all."""
    detail = [{"loc": [*item["loc"]], "msg": item["msg"], "type": item["type"]} for item in error.errors()]
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _without_output(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("stdout", "stderr")}


async def _one(submission: Submission, gateway: Gateway) -> dict[str, Any]:
    item = accept(submission, gateway)
    return {"sub_id": submission.name(), **(item if isinstance(item, dict) else await gateway.run(item))}


async def _many(batch: BatchSubmission, gateway: Gateway, long: bool) -> dict[str, Any]:
    items = [accept(submission, gateway, long) for submission in batch.submissions]
    answers = await gateway.run_many(items, long)
    results = [{"sub_id": s.name(), **answer} for s, answer in zip(batch.submissions, answers, strict=True)]
    name = (batch.sub_id or str(uuid.uuid4())).encode("utf-8", "replace").decode()
    return {"sub_id": name, "results": results}


async def _many_judged(batch: BatchSubmission, gateway: Gateway, long: bool) -> dict[str, Any]:
    answer = await _many(batch, gateway, long)
    return {**answer, "results": [_without_output(result) for result in answer["results"]]}


@app.get("/ping")
async def ping() -> str:
    """ "pong"."""
    return "pong"


@app.get("/status")
async def status(gateway: Annotated[Gateway, Depends(_gateway)]) -> dict[str, Any]:
    """Jobs that wait (`queue`) and run (`running`), live workers (`num_workers`), what isolates the
    programs.
    """
    try:
        return {**await gateway.status(), "version": __version__}
    except (redis.RedisError, OSError) as error:
        raise HTTPException(503, f"Redis does not answer: {error}") from None


@app.post("/run", response_model=Result, dependencies=_protected)
async def run(submission: Submission, gateway: _Admitted) -> Response:
    """Run one program; answer with its output."""
    return _json(await _one(submission, gateway))


@app.post("/judge", response_model=JudgeResult, dependencies=_protected)
async def judge(submission: Submission, gateway: _Admitted) -> Response:
    """Run one program; answer without its output."""
    return _json(_without_output(await _one(submission, gateway)))


@app.post("/run/batch", response_model=BatchResult, dependencies=_protected)
async def run_batch(batch: BatchSubmission, gateway: _Admitted) -> Response:
    """Run several programs; each may wait for a worker as long as a single one."""
    return _json(await _many(batch, gateway, long=False))


@app.post("/run/long-batch", response_model=BatchResult, dependencies=_protected)
async def run_long_batch(batch: BatchSubmission, gateway: _Admitted) -> Response:
    """Run many programs, after all other work, however long they wait."""
    return _json(await _many(batch, gateway, long=True))


@app.post("/judge/batch", response_model=JudgeBatchResult, dependencies=_protected)
async def judge_batch(batch: BatchSubmission, gateway: _Admitted) -> Response:
    """/run/batch without output."""
    return _json(await _many_judged(batch, gateway, long=False))


@app.post("/judge/long-batch", response_model=JudgeBatchResult, dependencies=_protected)
async def judge_long_batch(batch: BatchSubmission, gateway: _Admitted) -> Response:
    """/run/long-batch without output."""
    return _json(await _many_judged(batch, gateway, long=True))

"""POST /run_code in the form of SandboxFusion (github.com/bytedance/SandboxFusion), so that its clients,
verl's reward code among them, can use this service unchanged.

Whatever is not the program's fault is 504 here, a full queue and a service that is stopping included: it is
the one status after which verl's client asks again; anything else it scores as a failure.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Body, HTTPException, Request, Response
from pydantic import BaseModel, Field

from app import cpp, examples
from app.gateway import Gateway, Overloaded
from app.job import Job, Steps
from app.metrics import Tally
from app.schema import Problem, Text

PATH = "/run_code"
ASK_AGAIN = 504
# Seconds. verl's client waits for compile_timeout + run_timeout + 10 s, and does not ask again after that.
_CLIENT_SPARE = 8.0  # for waiting
_LAST_CALL = 9.0
_MOST_FILES = 256
_NAMES_LIMIT = 16384  # bytes of all names together: they travel in one message
_NAME_LIMIT = 255  # bytes between two slashes, as file systems have it

# All that SandboxFusion knows. Others are 422 there; one that can't be run is a SandboxError.
Language = Literal[
    "python", "cpp", "nodejs", "go", "go_test", "java", "php", "csharp", "bash", "typescript", "sql", "rust", "cuda",
    "lua", "R", "perl", "D_ut", "ruby", "scala", "julia", "pytest", "junit", "kotlin_script", "jest", "verilog",
    "python_gpu", "lean", "swift", "racket",
]  # fmt: skip


class RunCodeRequest(BaseModel):
    """A program to run, and files to put beside it and to bring back. Unknown fields are ignored."""

    code: Text = Field(description="the program's text")
    language: Language = Field(description='"python" or "cpp"; the others are answered with SandboxError')
    stdin: Text | None = None
    compile_timeout: float = Field(10.0, gt=0, description="seconds, MAX_COMPILE_TIME at most")
    run_timeout: float = Field(10.0, gt=0, description="seconds, MAX_EXECUTION_TIME at most")
    memory_limit_MB: int = Field(-1, description="MiB, MAX_MEMORY at most; 0 or less: MAX_MEMORY")
    files: dict[Text, Text | None] = Field(
        default_factory=dict, description="base64 contents by path in the program's folder; null is skipped"
    )
    fetch_files: list[Text] = Field(
        default_factory=list, description="paths of files to bring back after the run, whatever came of it"
    )


_Described = Annotated[RunCodeRequest, Body(openapi_examples=examples.RUN_CODE)]


class CommandResult(BaseModel):
    """What came of one command, the compiler or the program."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float | None = Field(None, description="seconds")
    return_code: int | None = Field(
        None, description="-N: ended by signal N; null: stopped when its time was over"
    )
    stdout: str | None = None
    stderr: str | None = None


class RunCodeResponse(BaseModel):
    """What came of a program."""

    status: Literal["Success", "Failed", "SandboxError"] = Field(
        description="Success: every command ended with 0. SandboxError: nothing was run, and `message` says why"
    )
    message: str
    compile_result: CommandResult | None = Field(None, description="null where nothing is compiled")
    run_result: CommandResult | None = Field(None, description="null if it was not run")
    executor_pod_name: str | None = None
    files: dict[str, str] = Field(
        default_factory=dict, description="base64 contents of the fetched files that exist"
    )


class _Refused(Exception):
    """The request can't be run; the text is the message of a SandboxError."""


def router(tally: Tally, **options: Any) -> APIRouter:
    """The route. options: of FastAPI's `post`, such as `dependencies`."""
    found = APIRouter()
    responses = {
        **options.pop("responses", {}),
        ASK_AGAIN: {"model": Problem, "description": "not now: ask again"},
    }
    for status in (429, 503):
        responses.pop(status, None)

    @found.post(PATH, response_model=RunCodeResponse, responses=responses, **options)
    async def run_code(request: _Described, http: Request) -> Response:
        """Run one program, in SandboxFusion's form: Python or C++, with files to and from its folder."""
        gateway: Gateway = http.app.state.gateway
        try:
            await gateway.admit()
        except Overloaded as error:
            raise HTTPException(ASK_AGAIN, str(error), {"Retry-After": str(error.seconds)}) from None
        try:
            job = _job(request, gateway)
        except _Refused as error:
            return _json(_answer("SandboxError", str(error)))
        try:
            async with asyncio.timeout(request.compile_timeout + request.run_timeout + _LAST_CALL):
                answer = await gateway.run(job)
        except TimeoutError:
            text = "no answer in time: are workers running, and Redis? See /status"
            raise HTTPException(ASK_AGAIN, text, {"Retry-After": "1"}) from None
        tally.job(request.language, answer)
        if answer["retryable"]:
            raise HTTPException(ASK_AGAIN, answer["stderr"].strip(), {"Retry-After": "1"})
        return _json(_of(answer))

    return found


def _job(request: RunCodeRequest, gateway: Gateway) -> Job:
    """The job of a request. Raises _Refused."""
    settings = gateway.settings
    language = request.language
    if language != "python" and language != "cpp":
        raise _Refused(f"language {language!r} is not supported by this service: python and cpp are")
    for name, text in (("code", request.code), ("stdin", request.stdin or "")):
        if not _encodable(text):
            raise _Refused(f"{name} holds a lone surrogate, which is no text in UTF-8")
    native = language == "cpp"
    compile_timeout = min(request.compile_timeout, settings.max_compile_time) if native else 0.0
    run_timeout = min(request.run_timeout, settings.max_execution_time)
    job = gateway.job(
        text=request.code,
        stdin=request.stdin or "",
        expected=None,
        timeout=run_timeout,
        echo=False,
        seed=None,
        long=False,
        steps=Steps(
            language=language,
            compile_timeout=compile_timeout,
            memory_mib=request.memory_limit_MB if 0 < request.memory_limit_MB < settings.max_memory else None,
            files=_files(request.files, native, settings.max_disk),
            fetch=_paths(request.fetch_files),
            whole=True,
        ),
    )
    patience = request.compile_timeout + request.run_timeout + _CLIENT_SPARE - compile_timeout - run_timeout
    return dataclasses.replace(job, life=min(settings.max_queue_work_life_time, patience))


def _files(files: Mapping[str, str | None], native: bool, most_mib: int) -> dict[str, str]:
    """Those that have contents. Raises _Refused for what can't be in the scratch folder."""
    given = {path: content for path, content in files.items() if content is not None}
    paths = _paths(given)
    folders = {path[:place] for path in paths for place, letter in enumerate(path) if letter == "/"}
    if clash := folders.intersection(paths):
        raise _Refused(f"files: {min(clash)!r} is a file and a folder")
    if native and (taken := {cpp.SOURCE, cpp.PROGRAM} & {path.partition("/")[0] for path in paths}):
        raise _Refused(f"files: the name {min(taken)!r} is taken by the program itself")
    size = 0
    for path, content in given.items():
        try:
            size += len(base64.b64decode(content))
        except (binascii.Error, ValueError) as error:
            raise _Refused(f"files: the content of {path!r} is no base64: {error}") from None
    if size > most_mib << 20:
        raise _Refused(f"files: larger than {most_mib} MiB together (MAX_DISK)")
    return given


def _paths(names: Mapping[str, str] | list[str]) -> tuple[str, ...]:
    """The names, each once. Raises _Refused for one that does not lead to a place in the scratch folder."""
    paths = tuple(dict.fromkeys(names))
    for path in paths:
        parts = path.split("/")
        whole = _encodable(path) and "\0" not in path and not {"", ".", ".."}.intersection(parts)
        if not whole or any(len(part.encode()) > _NAME_LIMIT for part in parts):
            shown = path[:100].encode("utf-8", "replace").decode()
            raise _Refused(f"{shown!r} is no path of a file in the program's folder: a/b.txt is")
    if len(paths) > _MOST_FILES or sum(len(path.encode()) for path in paths) > _NAMES_LIMIT:
        raise _Refused(f"too many files: {_MOST_FILES} with {_NAMES_LIMIT} bytes of names are allowed")
    return paths


def _of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The response to a job that was run, or can't be."""
    steps = answer.get("steps")
    if steps is None:
        return _answer("SandboxError", answer["stderr"].strip() or answer["reason"])
    commands = [steps[name] for name in ("compile", "run") if steps[name] is not None]
    well = all(command["status"] == "Finished" and command["return_code"] == 0 for command in commands)
    return _answer(
        "Success" if well else "Failed", steps["message"], steps["compile"], steps["run"], steps["files"]
    )


def _answer(
    status: str,
    message: str,
    compile_result: dict[str, Any] | None = None,
    run_result: dict[str, Any] | None = None,
    files: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "compile_result": compile_result,
        "run_result": run_result,
        "executor_pod_name": None,
        "files": files or {},
    }


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")

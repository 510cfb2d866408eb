"""The command `code-judge run FILE`: one program through a running service, for whoever tries things."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any, TextIO

from code_judge.errors import BadSubmission, JudgeSettingsError, JudgeUnavailable
from code_judge.settings import DEFAULT_URL, URL_VARIABLE, JudgeSettings

SUMMARY = "run one program through a running service"
MORE = (
    "Prints what the program prints, and says on stderr how it ended. Exit status 0: it succeeded; 1: it did "
    "not; 2: it was not run. A token is taken from CODE_JUDGE_TOKEN or CODE_JUDGE_TOKEN_FILE."
)

_KINDS = {".py": "python", ".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp"}
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("file", metavar="FILE", help="the program: .py, or .cpp; -: Python from stdin")
    parser.add_argument("--stdin", metavar="FILE", help="what the program reads (default: nothing)")
    parser.add_argument("--expect", metavar="FILE", help="what it must print, to succeed")
    parser.add_argument("--type", choices=("python", "cpp"), help="default: by the name of FILE")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds, below the service's limit")
    parser.add_argument("--echo-last", action="store_true", help="print the last expression's value")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    parser.add_argument("--url", help=f"the service (default: {URL_VARIABLE}, or {DEFAULT_URL})")
    parser.add_argument(
        "--deadline", type=float, metavar="S", default=60.0, help="seconds to keep asking (default: 60)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        given = {"url": options.url} if options.url else {}
        settings = JudgeSettings.from_environment(deadline_s=options.deadline, **given)
        result = asyncio.run(_ask(settings, _submission(options)))
    except (OSError, UnicodeDecodeError, JudgeSettingsError, JudgeUnavailable, BadSubmission) as error:
        print(f"code-judge: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if options.json:
        print(json.dumps(result))
    else:
        _show(result["stdout"], sys.stdout)
        _show(result["stderr"], sys.stderr)
        print(f"code-judge: {_summary(result)}", file=sys.stderr)
    return 0 if result["success"] else 1


async def _ask(settings: JudgeSettings, submission: dict[str, Any]) -> dict[str, Any]:
    # Late: the other commands need no HTTP client.
    from code_judge.client import JudgeClient

    async with JudgeClient(settings) as judge:
        return {**await judge.run(submission)}


def _submission(options: argparse.Namespace) -> dict[str, Any]:
    name = Path(options.file)
    text = sys.stdin.read() if options.file == "-" else name.read_text("utf-8")
    wishes = {"echo_last": "1"} if options.echo_last else {}
    if options.timeout is not None:
        wishes["timeout"] = str(options.timeout)
    return {
        "type": options.type or _KINDS.get(name.suffix.lower(), "python"),
        "solution": text,
        "input": Path(options.stdin).read_text("utf-8") if options.stdin else None,
        "expected_output": Path(options.expect).read_text("utf-8") if options.expect else None,
        "options": wishes,
    }


def _summary(result: dict[str, Any]) -> str:
    if result["success"]:
        end = "success"
    elif result["run_success"]:
        end = "wrong answer"
    else:
        end = result["reason"] or result.get("exception") or "failed"
    return f"{end}, {result['cost']:.3f} s"


def _show(text: str, stream: TextIO) -> None:
    if stream.isatty():
        # A program must not steer the terminal of whoever looks at its output.
        text = _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    stream.buffer.write(text.encode("utf-8", "replace"))
    stream.flush()

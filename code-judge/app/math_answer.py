"""Jobs of type `math`: a final answer is compared with the expected one, in the sandbox."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from app import verdict
from app.job import Job, outcome
from app.sandbox.capture import Capture
from app.sandbox.cell import Cell
from app.sandbox.final_answer import BAD_EXPECTED, EQUAL, UNREADABLE
from app.sandbox.protocol import Order
from app.settings import Settings

_PROGRAM = b"import final_answer\nfinal_answer.main()\n"  # the layer of these jobs has that module
_OUTPUT_LIMIT = 4096
_SAID = {
    UNREADABLE: "no mathematics was found in the answer: write it as LaTeX, best in \\boxed{}, or plainly\n",
    BAD_EXPECTED: "no mathematics was found in expected_output; words need \\text{}\n",
}
_ABSENT = "math-verify is not installed where the workers run: pip install 'math-verify[antlr4_9_3]'\n"


def run(job: Job, cell: Cell, settings: Settings) -> dict[str, Any]:
    """The answer of a `math` job. Raises SandboxLost and ClientLeft."""
    nonce = secrets.token_hex(16)
    task = json.dumps({"nonce": nonce, "answer": job.text, "expected": job.expected})
    stdout, stderr = Capture(_OUTPUT_LIMIT), Capture(settings.max_stdout_error_length)
    seen = cell.run(_PROGRAM, task.encode(), Order(job.timeout, False, None), stdout, stderr)
    if seen.timed_out:
        seen.report = b""  # where our own program was is nothing to tell
    answer = verdict.of_program(job, seen, Capture(0), stderr, settings.max_memory)
    if answer["exception"] == "ModuleNotFoundError":
        return outcome(reason="invalid_input", stderr=_ABSENT)
    found = re.search(rf"^{nonce} (\S+)$", stdout.text(), re.MULTILINE)
    if found is None or not answer["run_success"]:
        return {**answer, "success": False}
    word = found[1]
    return outcome(
        success=word == EQUAL,
        run_success=word != BAD_EXPECTED,
        cost=answer["cost"],
        stderr=_SAID.get(word, ""),
        reason="invalid_input" if word == BAD_EXPECTED else "",
    )

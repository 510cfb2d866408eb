"""The benchmarks of the rollback run, measure what they say, and end with one line of JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# All in one process, because importing verl takes longer than any of them at this size. The one that forks comes first.
# Frozen: what the imports made is not searched for garbage before each of the short measurements.
RUN_ALL = """
import gc, shlex, sys
sys.path[0:0] = [{folder!r}]
import trajectory_memory, agent_loop, call_location
gc.freeze()
for module, arguments in (
    (trajectory_memory, "--trajectories 2 --tokens 1600 --turns 4 --failing 1 --variants on 'on, failing'"),
    (agent_loop, "--trajectories 4 --turns 3 --batch 2 --rounds 1 --failing 1"),
    (call_location, "--tokens 200 400 --history 100 --repeat 3 --slow-repeat 1"),
):
    module.main(shlex.split(arguments))
    print("=", flush=True)
"""


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    """The JSON of each benchmark, run at a tiny size."""
    code = RUN_ALL.format(folder=str(ROOT / "benchmarks"))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    names = ("trajectory_memory", "agent_loop", "call_location")
    parts = run.stdout.split("\n=\n")[: len(names)]
    return {name: json.loads(part.splitlines()[-1]) for name, part in zip(names, parts, strict=True)}


def test_trajectory_memory_measures_ours_upstreams_and_the_floor(results):
    rows = {row["variant"]: row for row in results["trajectory_memory"]["rows"]}
    assert set(rows) == {"upstream", "on", "upstream, failing", "on, failing"}
    assert all(row["live_bytes"] > 0 and row["output_bytes"] > 0 for row in rows.values())
    assert rows["upstream"]["live_ratio"] == 1.0
    floor = results["trajectory_memory"]["floor_bytes_per_token"]
    assert 8.5 < floor["arrays"] < 10 < floor["lists"] < rows["on, failing"]["live_bytes_per_token"]


def test_agent_loop_counts_the_extra_requests_of_failing_calls(results):
    result = results["agent_loop"]
    requests = {row["variant"]: row["requests"] for row in result["rows"]}
    assert requests["upstream"] == requests["on"] == requests["upstream, failing"] == 12
    # Both calls of all four trajectories fail; each takes one correction or three.
    assert 12 + 8 <= requests["on, failing"] <= 12 + 24
    assert {ratio["variant"] for ratio in result["ratios"]} == {"off", "on", "record", "on, failing"}
    assert all(ratio["wall"]["min"] <= ratio["wall"]["median"] for ratio in result["ratios"])


def test_call_location_compares_with_growing_prefixes_for_both_kinds_of_tokenizer(results):
    rows = results["call_location"]["rows"]
    assert [(row["tokens"], row["marker_tokens"]) for row in rows] == [
        (200, True),
        (400, True),
        (200, False),
        (400, False),
    ]
    assert all(row["ratio"] > 1 for row in rows)

"""Runs the quick start as a user would, small, and finds the processes that it left behind."""

import json
import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Everything real, only fewer prompts and samples than the quick start's defaults.
SMALL = (
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "data.val_max_samples=8",
    "trainer.save_freq=2",
)


@dataclass
class QuickStart:
    """One call of quickstart.sh. Its processes are recognised by a variable in their environment."""

    output: Path
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "recipe/cleaner/quickstart.sh", *SMALL, *overrides],
            cwd=ROOT,
            env={
                **os.environ,
                "OUTPUT_DIR": str(self.output),
                "QUICKSTART_MARK": self.mark,
                **self.environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A terminal's Ctrl-C reaches the foreground process group: give the script one of its own.
            start_new_session=True,
        )

    def run(self, *overrides: str, timeout: float = 300) -> str:
        process = self.start(*overrides)
        try:
            printed, _ = process.communicate(timeout=timeout)
        finally:
            self.kill()
        assert process.returncode == 0, printed
        return printed

    def interrupt(self, process: subprocess.Popen[str], timeout: float = 60) -> str:
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=timeout)
        return printed

    def left_running(self, patience: float = 5) -> list[str]:
        """Command lines of this run's processes that are still there after `patience` seconds."""
        deadline = time.monotonic() + patience
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [command for _, command in found]

    def kill(self) -> None:
        if self.left_running():
            for pid, _ in self._processes():
                os.kill(pid, signal.SIGKILL)

    def metrics(self) -> dict[int, dict[str, Any]]:
        steps: dict[int, dict[str, Any]] = {}
        for path in sorted(self.output.glob("metrics*.jsonl"), key=lambda path: path.name == "metrics.jsonl"):
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                steps.setdefault(entry["step"], {}).update(entry["data"])
        return steps

    def trajectories(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / "trajectories.jsonl").read_text().splitlines()]

    def _processes(self) -> list[tuple[int, str]]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"QUICKSTART_MARK={self.mark}".encode() in (folder / "environ").read_bytes():
                    found.append((int(folder.name), (folder / "cmdline").read_text().replace("\0", " ")))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

"""What a recipe would run: its command and environment, taken down by a stand-in for the Python interpreter."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipe" / "cleaner"
# A value of the tests' own environment must not decide.
_CLEARED = [
    *(
        "MODEL_PATH",
        "TRAIN_FILE",
        "VAL_FILES",
        "OUTPUT_DIR",
        "TOOL_CONFIG",
        "RESUME_FROM",
        "KEEP_CHECKPOINTS",
    ),
    *("NUM_GPUS", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RAY_ADDRESS", "ENGINE", "SEED"),
    *("SINGLE_FACTOR", "LOOKAHEAD", "DRY_RUN", "WANDB_MODE", "WANDB_API_KEY", "HF_HUB_OFFLINE", "HF_HOME"),
    *("CODE_JUDGE_URL", "MAX_EXECUTION_TIME", "MAX_MEMORY"),
]


@dataclass(frozen=True)
class Recorded:
    """`command`: the arguments after the interpreter. `environment`: what it would run in."""

    command: list[str]
    environment: dict[str, str]

    @property
    def module(self) -> str:
        """The module that decides: that of the last `-m`."""
        return self.command[len(self.command) - self.command[::-1].index("-m")]

    @property
    def overrides(self) -> list[str]:
        return self.command[self.command.index("--config-name") + 2 :]


def run_script(
    script: str, *arguments: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a recipe in `folder`, whose `output` is its output directory unless the environment names another."""
    kept = {key: value for key, value in os.environ.items() if key not in _CLEARED}
    return subprocess.run(
        ["bash", str(RECIPES / script), *arguments],
        cwd=ROOT,
        env={**kept, "OUTPUT_DIR": str(folder / "output"), "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def record(script: str, *arguments: str, folder: Path, **environment: str) -> Recorded:
    """What `script` would run; nothing is started."""
    interpreter, command, variables = (folder / name for name in ("python", "command", "variables"))
    interpreter.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >'{command}'\nenv -0 >'{variables}'\n")
    interpreter.chmod(0o755)
    given = {"CODE_JUDGE_URL": "http://127.0.0.1:9", "PYTHON": str(interpreter), **environment}
    result = run_script(script, *arguments, folder=folder, **given)
    assert result.returncode == 0, result.stderr
    return Recorded(
        command.read_text().split("\0")[:-1],
        dict(line.split("=", 1) for line in variables.read_text().split("\0")[:-1]),
    )

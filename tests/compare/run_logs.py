"""What a training run logs."""

import json
from pathlib import Path


def log_run(folder: Path, accuracies: list[float], tokens_a_step: int = 50) -> None:
    """Metrics of a run that was validated at the start and after every step."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step, accuracy in enumerate(accuracies):
        data = {
            "val/accuracy": accuracy,
            "val/trajectories/clean_accuracy": accuracy / 2,
            "val/trajectories/used_tool": 0.9,
            "val/tool_calls/first_call_success_rate": accuracy,
        }
        if step:
            data |= {
                "run_total/generated_tokens": step * tokens_a_step,
                "run_total/trained_tokens": step * tokens_a_step // 2,
                "timing_s/step": 1.5,
            }
        lines.append(json.dumps({"step": step, "data": data}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")

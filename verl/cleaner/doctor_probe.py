"""Run by `cleaner doctor` in a fresh interpreter: import verl and our registrations, print what came of it.

Prints one line `PROBE {json}` with the keys `registered` (platform names), `entry_points` (modules in the
group verl.plugins), `plugin_loaded`, `plugin_error`, `platform` (device name that verl resolved),
`platform_error`, `backend` (registration -> whether it is there), `backend_error`, `gpus` (names). An error
is one line of text.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from typing import Any

PLUGIN = "cleaner.cpu.plugin"


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}".rstrip(": ")


def examine() -> dict[str, Any]:
    """Everything that can break is caught and told, except the import of verl itself."""
    import verl  # noqa: F401
    from verl.plugin.platform import get_platform
    from verl.plugin.platform.platform_manager import PlatformRegistry

    points = importlib.metadata.entry_points(group="verl.plugins")
    found: dict[str, Any] = {
        "entry_points": [point.value for point in points],
        "plugin_loaded": PLUGIN in sys.modules and "cpu" in PlatformRegistry.registered_names(),
    }
    if not found["plugin_loaded"]:
        try:
            importlib.import_module(PLUGIN)
        except Exception as error:
            found["plugin_error"] = _line(error)
    found["registered"] = list(PlatformRegistry.registered_names())
    try:
        found["platform"] = get_platform().device_name
    except Exception as error:
        found["platform_error"] = _line(error)
    found["gpus"] = _gpus()
    try:
        found["backend"] = _registrations()
    except Exception as error:
        found["backend_error"] = _line(error)
    return found


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _registrations() -> dict[str, bool]:
    importlib.import_module("cleaner.registrations")
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    return {
        "rollout server hf_server": "hf_server" in RolloutReplicaRegistry._registry,
        "weight sync of hf_server": ("hf_server", "async") in _ROLLOUT_REGISTRY,
        "agent loop cleaner_agent": "cleaner_agent" in _agent_loop_registry,
    }


if __name__ == "__main__":
    print("PROBE " + json.dumps(examine()), flush=True)

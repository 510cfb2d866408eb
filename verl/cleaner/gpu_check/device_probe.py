"""Run in an interpreter of its own: compute something on the device in each number format, and print what came of it.

Prints one line `DEVICE {json}`: `platform` (verl's device type), `name`, `count`, `capability`, `memory_gib`, `torch`,
`cuda`, and `formats`, by name the error of a matrix product against float64, relative to its largest element, or a text
where it could not be computed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from verl.plugin.platform import get_platform

_SIZE = 256


def probe(names: list[str]) -> dict[str, Any]:
    """See the module's text."""
    platform = get_platform()
    found: dict[str, Any] = {
        "platform": platform.device_name,
        "name": "CPU",
        "count": 0,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "formats": {},
    }
    device = torch.device("cpu")
    if platform.device_name == "cuda":
        found["count"] = torch.cuda.device_count()
        if not found["count"]:
            return found
        device = torch.device("cuda", 0)
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
    for name in names:
        try:
            found["formats"][name] = _product_error(getattr(torch, name), device)
        except Exception as error:  # a kernel that this card lacks says so in many ways
            found["formats"][name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return found


def _product_error(dtype: torch.dtype, device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(_SIZE, _SIZE, generator=generator).to(dtype) for _ in range(2))
    expected = left.double() @ right.double()
    actual = (left.to(device) @ right.to(device)).cpu().double()
    return float((actual - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    print("DEVICE " + json.dumps(probe(sys.argv[1:])), flush=True)

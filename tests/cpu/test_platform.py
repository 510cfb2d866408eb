"""The platform "cpu": chosen by VERL_PLATFORM=cpu and by nothing else, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch

from cleaner.cpu.platform import CPUPlatform, torch_cpu

PROGRAM = """
import json, sys
import verl
light = not any(name in sys.modules for name in ("cleaner.cpu.backend", "cleaner.cpu.engine", "cleaner.cpu.server"))
from verl.plugin.platform import PlatformRegistry, get_platform
from cleaner.cpu.plugin import assert_platform
try:
    complaint = assert_platform()
except RuntimeError as error:
    complaint = str(error)
print("RESULT" + json.dumps({
    "file": verl.__file__, "registered": PlatformRegistry.registered_names(), "device": get_platform().device_name,
    "class": type(get_platform()).__name__, "light": light, "complaint": complaint,
}))
"""


def facts(**environment: str) -> dict[str, Any]:
    base = {k: v for k, v in os.environ.items() if not k.startswith("VERL_")}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**base, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.split("RESULT")[1])


@pytest.fixture(scope="module")
def chosen() -> dict[str, Any]:
    return facts(VERL_PLATFORM="cpu")


@pytest.fixture(scope="module")
def not_chosen() -> dict[str, Any]:
    return facts()


def test_verl_platform_cpu_chooses_it_through_the_installed_entry_point(chosen):
    assert "cleaner.cpu.plugin" in {e.value for e in entry_points(group="verl.plugins")}
    assert (chosen["device"], chosen["class"]) == ("cpu", "CPUPlatform")
    assert chosen["complaint"] is None


def test_the_plugin_is_light(chosen):
    assert chosen["light"]


def test_import_verl_finds_the_installed_package_although_a_folder_of_that_name_is_on_the_path(chosen):
    assert chosen["file"].endswith("site-packages/verl/__init__.py")


def test_without_the_variable_verl_resolves_what_it_always_did(not_chosen):
    assert "cpu" in not_chosen["registered"]
    assert not_chosen["device"] != "cpu"
    assert "Set VERL_PLATFORM=cpu before the first import of verl" in not_chosen["complaint"]


def test_the_device_module_has_what_verl_calls():
    platform = CPUPlatform()
    assert platform.device_module is torch_cpu
    assert torch.zeros(1).to(platform.current_device()).device.type == "cpu"
    assert torch_cpu.max_memory_allocated() >= torch_cpu.memory_allocated() * 0.5 > 0
    free, total = torch_cpu.mem_get_info()
    assert 0 < free <= total
    state = torch_cpu.get_rng_state()
    first = torch.rand(3)
    torch_cpu.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
    torch_cpu.empty_cache()
    torch_cpu.synchronize()
    assert torch_cpu.Stream is torch.cpu.Stream

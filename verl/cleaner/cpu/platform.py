"""The verl platform "cpu".

verl asks a platform for a device type, a ``torch.<device>`` module and a few properties. ``torch.cpu`` lacks memory
statistics, ``empty_cache`` and a random state, all of which verl calls without asking, so :class:`TorchCPU` adds them.
"""

from __future__ import annotations

import contextlib
import os
import resource
import types
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _resident_bytes(*_: Any, **__: Any) -> int:
    return int(psutil.Process().memory_info().rss)


def _peak_resident_bytes(*_: Any, **__: Any) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


class TorchCPU(types.ModuleType):
    """A ``torch.<device>`` module for the CPU: ``torch.cpu`` and what verl expects beyond it.

    Memory "allocated" and "reserved" is the resident memory of this process in bytes.
    """

    def __init__(self) -> None:
        super().__init__("cleaner.cpu.platform.torch_cpu", self.__class__.__doc__)

    def __getattr__(self, name: str) -> Any:  # only for what is not defined below
        return getattr(torch.cpu, name)

    @staticmethod
    def is_available() -> bool:
        # False makes verl skip what only an accelerator has: cache emptying in loops, pinned copies, device names.
        return False

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def set_device(*_: Any, **__: Any) -> None:
        pass

    @staticmethod
    def synchronize(*_: Any, **__: Any) -> None:
        pass

    @staticmethod
    def empty_cache() -> None:
        pass

    @staticmethod
    def ipc_collect() -> None:
        pass

    @staticmethod
    def get_device_name(*_: Any, **__: Any) -> str:
        return "CPU"

    @staticmethod
    def manual_seed(seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    @staticmethod
    def get_rng_state(*_: Any, **__: Any) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_: Any, **__: Any) -> None:
        torch.set_rng_state(state)

    memory_allocated = staticmethod(_resident_bytes)
    memory_reserved = staticmethod(_resident_bytes)
    max_memory_allocated = staticmethod(_peak_resident_bytes)
    max_memory_reserved = staticmethod(_peak_resident_bytes)

    @staticmethod
    def reset_peak_memory_stats(*_: Any, **__: Any) -> None:
        pass  # the kernel's peak cannot be reset

    @staticmethod
    def mem_get_info(*_: Any, **__: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)


torch_cpu = TorchCPU()


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """No accelerator. Chosen by ``VERL_PLATFORM=cpu`` only; it never wins verl's auto-detection."""

    device_name = "cpu"
    vendor_name = "generic"

    @property
    def device_module(self) -> types.ModuleType:
        return torch_cpu

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"

    def current_device(self) -> torch.device:  # type: ignore[override]
        # verl hands this to Tensor.to(), where an int would mean "accelerator number 0".
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        # verl's resource check knows "GPU" and "NPU" only, so a CPU run tells Ray of pretended GPUs
        # (+ray_kwargs.ray_init.num_gpus=<world size>); they are slots for workers and nothing else.
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None

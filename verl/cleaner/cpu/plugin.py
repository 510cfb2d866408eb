"""Entry point of the group ``verl.plugins``: verl imports it in every process that imports verl.

It registers the platform "cpu" and nothing more, so it stays light. The platform is chosen only by
``VERL_PLATFORM=cpu``: on a machine with a GPU, and even on one without, nothing changes unless that is set.

verl logs an error in here at DEBUG level and goes on; :func:`assert_platform` says it aloud.
"""

from __future__ import annotations

from verl.plugin.platform import PlatformRegistry, get_platform

from cleaner.cpu import platform as _platform  # noqa: F401  (registers by being imported)


def assert_platform(expected: str = "cpu") -> None:
    """Check that verl resolved the device type ``expected`` in this process.

    Raises:
        RuntimeError: it resolved another one; the text names it, what is registered and what to do.
    """
    found = get_platform().device_name
    if found != expected:
        raise RuntimeError(
            f"verl resolved the device type {found!r}, not {expected!r} (registered platforms: "
            f"{', '.join(PlatformRegistry.registered_names())}). "
            "Set VERL_PLATFORM=cpu before the first import of verl, and check that the distribution 'cleaner' is "
            "installed, so that its verl.plugins entry point is found."
        )

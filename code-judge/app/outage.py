"""Redis being away is told once, and once that it is back; not each attempt."""

from __future__ import annotations

import logging
import time

from app.logs import event


class Outage:
    """What one process knows of the server's absence."""

    def __init__(self, log: logging.Logger, address: str) -> None:
        self._log = log
        self._address = address
        self._since: float | None = None

    def away(self, error: BaseException) -> None:
        """An attempt failed."""
        if self._since is None:
            self._since = time.monotonic()
            text = f"no answer from {self._address} ({error}); waiting for it"
            event(self._log, logging.WARNING, "redis_away", text, address=self._address)

    def back(self) -> None:
        """An attempt succeeded."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            self._since = None
            text = f"{self._address} answers again after {seconds:.1f} s"
            event(
                self._log, logging.INFO, "redis_back", text, address=self._address, seconds=round(seconds, 3)
            )

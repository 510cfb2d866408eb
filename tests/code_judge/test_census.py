"""Memory of processes that come and go while they are counted."""

import subprocess
import sys
from pathlib import Path

from app.sandbox import census

PAGES = (
    "x = bytearray(40 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('ready', flush=True)\ninput()"
)


def test_a_process_that_ended_before_it_was_counted_uses_nothing() -> None:
    living = subprocess.Popen([sys.executable, "-c", PAGES], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    try:
        assert living.stdout is not None and living.stdout.readline() == b"ready\n"
        assert not Path(f"/proc/{ended.pid}").exists()
        limit = 30 << 20
        alone = census.memory([living.pid], 0, limit)
        assert limit < alone < census.resident(living.pid), "counted exactly: without what is only mapped"
        assert abs(census.memory([living.pid, ended.pid], 0, limit) - alone) < 1 << 20
    finally:
        living.communicate(b"\n")

"""The script by which a worker hands over an answer and takes its next job: one command instead of nine.

Redis runs a script as a whole, so an answer is stored if and only if its job is acknowledged.
"""

from __future__ import annotations

from typing import Any

from app.job import RESULT_LIFE, Keys

# KEYS: reply list, stream of the job, streams of the next job in their order. ARGV: message, seconds that the list
# lives, group, entry ("": there is nothing to hand over), consumer ("": no next job is wanted). A stream or group that
# a new server does not know is no error here: the worker makes them when it next waits for jobs.
_SCRIPT = """
if ARGV[4] ~= '' then
  redis.call('RPUSH', KEYS[1], ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  redis.call('XACK', KEYS[2], ARGV[3], ARGV[4])
  redis.call('XDEL', KEYS[2], ARGV[4])
end
if ARGV[5] == '' then return false end
for i = 3, #KEYS do
  local taken = redis.pcall('XREADGROUP', 'GROUP', ARGV[3], ARGV[5], 'COUNT', '1', 'STREAMS', KEYS[i], '>')
  if taken and not taken.err and taken[1] then
    local entry = taken[1][2][1]
    return {KEYS[i], entry[1], entry[2]}
  end
end
return false
"""
_SHARE = 4  # of so many jobs one is a batch's even if single runs are always waiting

Taken = tuple[str, bytes, dict[bytes, bytes]]  # stream, entry id, fields


class Handover:
    """The script on one connection."""

    def __init__(self, server: Any, keys: Keys, consumer: str) -> None:
        self._run = server.register_script(_SCRIPT)
        self._orders = [keys.streams] * (_SHARE - 1) + [(keys.batch_jobs, keys.jobs, keys.long_jobs)]
        self._consumer = consumer
        self._taken = 0

    def __call__(
        self, reply: str, message: bytes, stream: str, entry_id: bytes, ask_next: bool
    ) -> Taken | None:
        """Hand over; the next job if one was waiting. Raises redis.RedisError."""
        return self._call(reply, message, stream, entry_id, self._consumer if ask_next else "")

    def take(self) -> Taken | None:
        """The next job if one is waiting. Raises redis.RedisError."""
        return self._call("", b"", "", b"", self._consumer)

    def _call(self, reply: str, message: bytes, stream: str, entry_id: bytes, consumer: str) -> Taken | None:
        order = self._orders[self._taken % _SHARE]
        arguments = [message, RESULT_LIFE, Keys.GROUP, entry_id, consumer]
        taken = self._run(keys=[reply, stream, *order], args=arguments)
        if not taken or not taken[2]:
            return None
        self._taken += 1
        name, entry, fields = taken
        return name.decode(), entry, dict(zip(fields[::2], fields[1::2], strict=True))

"""Rows of conversations for the cold start, checked before a run starts.

verl's `MultiTurnSFTDataset` reads two columns: messages, a list of {role, content, tool_calls?}, and tools, a list of
function schemas or nothing. Every assistant message is trained.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cleaner.preflight import Problem

ROLES = ("system", "user", "assistant", "tool")


def check_conversations(file: str | Path, option: str, messages_key: str, tools_key: str) -> list[Problem]:
    """The first thing that is wrong with a file of conversations, if anything is; names file, row and column.

    Args:
        file: parquet.
        option: the configuration's key that names the file.
        messages_key, tools_key: the columns.
    """
    where, fix = f"{option} {file}", "Give a parquet file of conversations, see docs/migration.md"
    try:
        columns = pq.read_schema(file).names
        if messages_key not in columns:
            return [Problem(f"no column {messages_key!r} (it has: {', '.join(columns)})", where, fix)]
        wanted = [name for name in (messages_key, tools_key) if name in columns]
        row = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024, columns=wanted):
            for values in batch.to_pylist():
                if fault := _fault(values, messages_key, tools_key):
                    return [Problem(f"row {row}, {fault}", where, fix)]
                row += 1
    except (pa.ArrowException, OSError) as error:
        return [Problem(f"not a readable parquet file ({str(error).splitlines()[0]})", where, fix)]
    return [] if row else [Problem("has no rows", where, fix)]


def _fault(values: dict[str, Any], messages_key: str, tools_key: str) -> str | None:
    messages = values[messages_key]
    column = f"column {messages_key!r}"
    if not isinstance(messages, list) or not messages:
        return f"{column}: must be a list of messages"
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else message
            return f"{column}: message {position} has the role {role!r}; roles are {', '.join(ROLES)}"
        if not isinstance(message.get("content"), str) and not message.get("tool_calls"):
            return f"{column}: message {position} has neither content nor tool_calls"
    if not any(message["role"] == "assistant" for message in messages):
        return f"{column}: no message of an assistant, so there is nothing to train"
    tools = values.get(tools_key)
    if tools is not None and not isinstance(tools, list):
        return f"column {tools_key!r}: must be a list of function schemas, or null"
    return None

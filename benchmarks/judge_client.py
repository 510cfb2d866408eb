"""One keep-alive HTTP connection, thin enough not to be what is measured."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit


class Client:
    """Sends JSON, one request after the other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def post(self, path: str, content: object) -> tuple[int, Any]:
        """Send JSON; the status and the JSON of the answer."""
        body = json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        size = int(answer.partition(b"content-length:")[2].split(b"\r\n")[0])
        return int(answer.split()[1]), json.loads(await self._reader.readexactly(size))

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()

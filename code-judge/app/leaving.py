"""A client that closes its connection wants no answer: its request is cancelled, and with it the jobs behind it."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Leaving:
    """ASGI middleware. Watches the connection from the end of a POST's body to the end of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        request = asyncio.current_task()
        watch: asyncio.Task[None] | None = None
        answered = left = False

        async def wait_for_the_end() -> None:
            nonlocal left
            while (await receive())["type"] != "http.disconnect":
                pass
            if not answered and request is not None:
                left = True
                request.cancel()

        async def noticed() -> Message:
            nonlocal watch
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body") and watch is None:
                watch = asyncio.create_task(wait_for_the_end())
            return message

        async def answer(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, noticed, answer)
        except asyncio.CancelledError:
            if not left or request is None:
                raise
            request.uncancel()
        finally:
            if watch is not None:
                watch.cancel()

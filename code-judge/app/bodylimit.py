"""A request body has a limit, declared or not."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Answers 413 to a request whose body is larger than `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if declared is not None:  # the server cuts the body there
            if declared.isdigit() and int(declared) > self.limit:
                await self._refuse(send)
            else:
                await self.app(scope, receive, send)
            return
        await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a body of unknown length; one that turns out too long looks like a client that left."""
        received = 0
        answered = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= self.limit else {"type": "http.disconnect"}

        async def noticed(message: Message) -> None:
            nonlocal answered
            if received <= self.limit or answered:
                answered = True
                await send(message)

        try:
            await self.app(scope, counted, noticed)
        except Exception:
            if received <= self.limit:
                raise
        if received > self.limit and not answered:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        body = f'{{"detail":"the body is larger than {self.limit >> 20} MiB (MAX_BODY)"}}'.encode()
        # Closed, for the rest of the body is still to come.
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})

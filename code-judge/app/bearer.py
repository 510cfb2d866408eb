"""The bearer token (RFC 6750) that POSTs must send if the service has one; as a password (RFC 7617), too."""

from __future__ import annotations

import base64
import hmac

from fastapi import HTTPException, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase


class BearerToken(SecurityBase):
    """A FastAPI dependency: 401 unless the request carries the token. `/docs` gets a button for it."""

    def __init__(self, token: str) -> None:
        self.model = HTTPBearer(description="the service's CODE_JUDGE_TOKEN")
        self.scheme_name = "token"
        self._token = token.encode()

    async def __call__(self, request: Request) -> None:
        """Compare in a time that does not depend on where the first wrong character is. Raises
        HTTPException.
        """
        # Starlette decodes headers as Latin-1, so that the bytes are had back, whatever they are.
        sent = request.headers.get("authorization", "").encode("latin-1")
        scheme, _, token = sent.partition(b" ")
        if scheme.lower() == b"basic":  # what clients make of http://any:<token>@host
            try:
                token = base64.b64decode(token, validate=True).partition(b":")[2]
            except ValueError:
                token = b""
        if not (hmac.compare_digest(token, self._token) and scheme.lower() in (b"bearer", b"basic")):
            detail = "send the service's token: Authorization: Bearer <CODE_JUDGE_TOKEN>"
            raise HTTPException(401, detail, {"WWW-Authenticate": 'Bearer realm="code-judge"'})

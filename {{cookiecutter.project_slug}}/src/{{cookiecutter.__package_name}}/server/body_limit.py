"""How large a request's body may be."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimitExceeded(HTTPException):
    """An HTTPException, for FastAPI turns any other error in reading a body into a 400."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class BodyLimit:
    """Refuses bodies of more than `max_bytes`, with or without a Content-Length.

    FastAPI's own `max_body_size` would answer in plain text.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = int(Headers(scope=scope).get("content-length", 0))
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            if declared <= self._max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
            if max(declared, received) > self._max_bytes:
                raise BodyLimitExceeded
            return message

        await self.app(scope, limited_receive, send)

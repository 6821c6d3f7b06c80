"""Creates the SDK's client."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2
from openai import AsyncOpenAI

from ..settings import Settings
from .attempt import current_attempt
from .connections import attempt_timeout
from .error_bodies import may_hold_error, set_status
from .transport import Transport

T = TypeVar("T")


def api_key(settings: Settings) -> str | Callable[[], Awaitable[str]]:
    """The key; or an async function that returns a token, which is called before each request."""
    return settings.openai_api_key.get_secret_value()


class _HttpClient(httpx2.AsyncClient):
    """Hands requests straight to the transport.

    httpx's own `send` also handles redirects, cookies and authentication. Calls of OpenAI need none
    of them, and they take a tenth of the CPU time of the SDK and httpx. Redirects are not followed:
    most would turn the POST into a GET.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport=transport)
        self._upstream = transport

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        **_options: Any,  # noqa: ANN401 - as in httpx's `send`
    ) -> httpx2.Response:
        attempt = current_attempt.get()
        if attempt:
            attempt.sending(request)
        response = await self._upstream.handle_async_request(request)
        response.request = request
        if attempt:
            attempt.received(response)
        try:
            if not stream or may_hold_error(response):
                await response.aread()
                set_status(response)
        except BaseException:
            await response.aclose()
            raise
        return response


def open_client(settings: Settings, transport: Transport) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key=api_key(settings),
        base_url=settings.openai_base_url,
        timeout=attempt_timeout(settings),
        max_retries=0,  # `retries` is the one retry layer
        http_client=_HttpClient(transport),
    )


async def send_once(settings: Settings, send: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
    """Run `send` with a new client, for the key check. Cancellation aborts it."""
    async with open_client(settings, Transport(settings.openai_base_url)) as client:
        return await send(client)

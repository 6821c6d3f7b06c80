"""The SDK's client, and what it sends as the key."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2
from openai import OpenAI

from ..settings import Settings
from .connections import attempt_timeout
from .deadline import Deadline
from .transport import Transport, raise_status

T = TypeVar("T")


def api_key(settings: Settings) -> str | Callable[[], str]:
    """The key; or a function that returns a token, which is called before each request."""
    return settings.openai_api_key.get_secret_value()


class _HttpClient(httpx2.Client):
    """Sends a request to the transport and no further.

    httpx's own `send` also handles redirects, cookies and authentication, which a call of OpenAI
    does not need: a tenth of what the SDK and httpx cost. No redirect is followed: each would be a
    further request, and turn a POST into a GET.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport=transport)
        self._upstream = transport

    def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        **_options: Any,  # noqa: ANN401 - of httpx's `send`
    ) -> httpx2.Response:
        response = self._upstream.handle_request(request)
        response.request = request
        try:
            raise_status(response)
            if not stream:
                response.read()
        except BaseException:
            response.close()
            raise
        return response


def open_client(settings: Settings, transport: Transport) -> OpenAI:
    return OpenAI(
        api_key=api_key(settings),
        base_url=settings.openai_base_url,
        timeout=attempt_timeout(settings),
        max_retries=0,  # `retries` is the one layer
        http_client=_HttpClient(transport),
    )


async def send_once(settings: Settings, send: Callable[[OpenAI], T]) -> T:
    """Run `send` with a client of its own; cancellation aborts it. For the key check."""
    transport = Transport(settings.openai_base_url)
    with open_client(settings, transport) as client, transport.calling(Deadline(math.inf)):
        return await asyncio.to_thread(send, client)

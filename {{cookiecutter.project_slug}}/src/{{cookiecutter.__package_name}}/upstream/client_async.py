"""The SDK's client, and what it sends as the key."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from openai import AsyncOpenAI, DefaultAsyncHttpx2Client

from ..settings import Settings
from .connections import attempt_timeout
from .transport import Transport, raise_status

T = TypeVar("T")


def api_key(settings: Settings) -> str | Callable[[], Awaitable[str]]:
    """The key; or an async function that returns a token, which is called before each request."""
    return settings.openai_api_key.get_secret_value()


def open_client(settings: Settings, transport: Transport) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key=api_key(settings),
        base_url=settings.openai_base_url,
        timeout=attempt_timeout(settings),
        max_retries=0,  # `retries` is the one layer
        http_client=DefaultAsyncHttpx2Client(
            transport=transport,
            event_hooks={"response": [raise_status]},
            follow_redirects=False,  # each would be a request more, and a POST become a GET
        ),
    )


async def send_once(settings: Settings, send: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
    """Run `send` with a client of its own; cancellation aborts it. For the key check."""
    async with open_client(settings, Transport(settings.openai_base_url)) as client:
        return await send(client)

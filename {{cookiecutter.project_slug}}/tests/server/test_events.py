"""Events of a stream as a response."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from pydantic import BaseModel
from starlette.background import BackgroundTask

from ..conftest import service_events


class Item(BaseModel):
    text: str


class Source:
    """Yields its first item; the others have arrived by then."""

    def __init__(self, *texts: str) -> None:
        self._items = [Item(text=text) for text in texts]

    async def __aiter__(self) -> AsyncIterator[Item]:
        while self._items:
            yield self._items.pop(0)

    def ready(self) -> list[Item]:
        ready, self._items = self._items, []
        return ready

    async def aclose(self) -> None:
        pass


async def bodies(
    source: Source,
    name: Callable[[Item], str | None] = lambda item: "delta" if item.text else None,
    background: BackgroundTask | None = None,
) -> list[bytes]:
    """The bodies of the messages that an ASGI server gets."""
    sent = []

    async def receive() -> Any:
        await asyncio.Future()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    response = service_events.EventStream(source, name)
    response.background = background
    await response({"type": "http"}, receive, send)
    return [body for body in sent if body]


def test_events_that_have_arrived_are_sent_together() -> None:
    (body,) = asyncio.run(bodies(Source("a", "", "b")))
    event = 'event: delta\ndata: {{"text":"{}"}}\n\n'
    assert body.decode() == event.format("a") + event.format("b")


class Closable(Source):
    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


def test_the_source_is_closed_before_background_tasks_run() -> None:
    source = Closable("a")
    found = []
    background = BackgroundTask(lambda: found.append(source.is_closed))
    asyncio.run(bodies(source, lambda _: "delta", background))
    assert found == [True]

"""The request that a call belongs to."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

from ..observer import Observer


class Lifetime(NamedTuple):
    is_cancelled: Callable[[], bool] = lambda: False
    """Whether to abort the calls. For threads, which cannot be cancelled and poll it."""
    exit_stack: AsyncExitStack | None = None
    """Closes, after the request, the streams that are still open."""
    observer: Observer = Observer()


OUTSIDE_REQUESTS = Lifetime()

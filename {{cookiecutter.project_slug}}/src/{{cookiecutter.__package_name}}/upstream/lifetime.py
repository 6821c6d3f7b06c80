"""The lifetime of a request, which bounds the lifetime of its calls."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

from ..observer import Observer


class Lifetime(NamedTuple):
    is_cancelled: Callable[[], bool]
    """Whether to abort the calls. For threads, which cannot be cancelled and poll it."""
    exit_stack: AsyncExitStack
    """Closes, after the request, the streams that are still open."""
    observer: Observer
    """Hears what the calls do."""

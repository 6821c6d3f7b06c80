"""A call of OpenAI that blocks its thread, and how another thread aborts it.

A thread that is blocked in a socket operation cannot be cancelled. Shutting the socket down from
another thread makes the operation fail.
"""

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

import httpx2

from .deadline import Deadline


class Connection(Protocol):
    def abort(self, call: "Call") -> None:
        """Shut its socket down, unless it belongs to another call by now."""


class Call:
    def __init__(
        self, deadline: Deadline, is_cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self.deadline = deadline
        self._is_cancelled = is_cancelled
        self.connections: set[Connection] = set()

    def is_over(self) -> bool:
        return self._is_cancelled() or self.deadline.has_passed()

    def abort(self) -> None:
        """Make operations in progress fail, and later ones of this call too."""
        self.deadline.ends_at = time.monotonic()  # its thread starts no further attempt or wait
        for connection in list(self.connections):
            connection.abort(self)

    def check(self) -> None:
        """Raise ReadError if the call was aborted, or its deadline has passed."""
        if self.deadline.has_passed():
            raise httpx2.ReadError("The call was aborted.")


# For requests outside of `OpenAIService.call`.
_ANY_CALL = Call(Deadline(math.inf))

# A context variable: the SDK, between `OpenAIService` and the transport, passes on no arguments.
current_call = ContextVar("current_call", default=_ANY_CALL)

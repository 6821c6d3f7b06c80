"""Parses `retry-after-ms` and `retry-after`."""

import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

import httpx2

# Seconds. Daily limits ask for hours; more than a day is a mistake.
LONGEST_RETRY_AFTER = 86_400.0


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait; None without a valid header."""
    for name, parse in (
        ("retry-after-ms", lambda text: float(text) / 1000),
        ("retry-after", float),
        ("retry-after", _seconds_until),
    ):
        with suppress(ValueError, OverflowError):
            seconds = parse(headers.get(name, ""))
            if 0 < seconds <= LONGEST_RETRY_AFTER:
                return seconds
    return None


def _seconds_until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()

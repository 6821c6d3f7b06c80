"""Parses `retry-after-ms` and `retry-after`."""

import re
import time
from email.utils import parsedate_to_datetime

import openai

# OpenAI's form of a duration: 6m0s, 1h2m3.5s, 20ms. A number without a unit is in seconds.
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0, "ms": 0.001}
_DURATION = r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|)"

# Seconds. Daily limits ask for hours; more than a day is a mistake.
LONGEST_RETRY_AFTER = 86_400.0


def retry_after(error: BaseException | None) -> float | None:
    """Seconds to wait, a day at most; None without a valid header."""
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    for text in (headers.get("retry-after-ms", "") + "ms", headers.get("retry-after", "")):
        seconds = _duration(text) or _seconds_until(text)
        if seconds > 0:
            return min(seconds, LONGEST_RETRY_AFTER)
    return None


def _duration(text: str) -> float:
    if not re.fullmatch(f"({_DURATION})+", text):
        return 0.0
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(_DURATION, text))


def _seconds_until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0

"""Interprets a response to the key check: is the key, the model or the address wrong?"""

import re
from contextlib import suppress
from enum import StrEnum
from typing import Any

import httpx2
import openai

from ..errors import UpstreamCredentials, UpstreamModelUnavailable
from .error_mapping import by_code, translate

# Error codes and content types that are safe to log: short, without spaces, unlike a key.
WORD = re.compile(r"[A-Za-z_./+-]{1,64}|[0-9]{1,6}")


class KeyStatus(StrEnum):
    UNCHECKED = "unchecked"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    MODEL_UNAVAILABLE = "model-unavailable"
    WRONG_ADDRESS = "wrong-address"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


# Failures that settle the check, whichever of the two requests they answer.
VERDICTS: dict[type[object] | None, KeyStatus] = {
    UpstreamCredentials: KeyStatus.REJECTED,
    UpstreamModelUnavailable: KeyStatus.MODEL_UNAVAILABLE,
}


def without_secrets(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "no URL"
    return str(parsed.copy_with(userinfo=b"", query=None, fragment=None))


class Answer:
    """An HTTP response. The server may not be an OpenAI API at all."""

    def __init__(self, response: httpx2.Response, error: openai.APIStatusError | None) -> None:
        self.http_status = response.extensions.get("http_status", response.status_code)
        self.status = error.status_code if error else self.http_status
        self.error = error
        self.body: Any = None
        with suppress(ValueError, RecursionError):
            self.body = response.json()
        content_type = response.headers.get("content-type", "").partition(";")[0]
        self.is_page = self.body is None and (
            content_type == "text/html" or self.status in (200, 400, 422)
        )
        code = (error.code or error.type or "") if error else ""
        detail = content_type if self.is_page else str(code)
        self.seen = str(self.http_status)
        if response.has_redirect_location:
            self.seen += f" to {without_secrets(response.headers['location'])}"
        elif WORD.fullmatch(detail) and detail != self.seen:
            self.seen += f" {detail}"

    def has_model(self) -> bool:
        """Whether the body is a model, or a list of models."""
        listed = self.body.get("data") if isinstance(self.body, dict) else self.body
        first = listed[0] if isinstance(listed, list) and listed else self.body
        return self.status == 200 and isinstance(first, dict) and bool(first.get("id"))

    def verdict(self) -> KeyStatus | None:
        """The verdict if either request would settle it; None if it takes the dry call."""
        if self.error and (known := by_code(self.error)) in VERDICTS:
            return VERDICTS[known]
        if self.http_status >= 500 or self.http_status == 407:  # 407: from a proxy
            return KeyStatus.UNREACHABLE
        return None

    def dry_call_verdict(self, model: str) -> KeyStatus:
        if verdict := self.verdict():
            return verdict
        if self.status == 404 and model in str(self.error):  # the dry call's URL has no model
            return KeyStatus.MODEL_UNAVAILABLE
        if self.is_page or self.status in (404, 405) or 300 <= self.status < 400:
            return KeyStatus.WRONG_ADDRESS
        if self.error is None:
            # Some servers reply even to a chat without messages.
            is_reply = isinstance(self.body, dict) and "choices" in self.body
            return KeyStatus.ACCEPTED if is_reply else KeyStatus.UNKNOWN
        known = type(translate(self.error))
        has_refused_content = self.status in (400, 422)
        return VERDICTS.get(known, KeyStatus.ACCEPTED if has_refused_content else KeyStatus.UNKNOWN)

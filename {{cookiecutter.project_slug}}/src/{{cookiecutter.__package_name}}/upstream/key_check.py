"""Checks whether OpenAI accepts the key and the model, before the first chat, cheaply.

First `GET /models/{model}`, which is free. Where the answer is no verdict (a restricted key, a
server without that path), a dry call settles it: a chat without messages, which is authenticated
and then refused.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import httpx2
import openai
from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from ..errors import UpstreamCredentials, UpstreamModelUnavailable, describe
from ..settings import Settings
from .client import send_once
from .connections import proxy_for
from .error_bodies import error_in
from .error_mapping import by_code, translate

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
START_SECONDS = 1.9  # the most that the check delays the start of the server
LONGEST_WAIT_SECONDS = 60


# Arguments of the SDK's `get` and `post`: the response as it is, and no timeout but the check's.
BARE: dict[str, Any] = {"cast_to": httpx2.Response, "options": {"timeout": None}}


class KeyStatus(StrEnum):
    UNCHECKED = "unchecked"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    MODEL_UNAVAILABLE = "model-unavailable"
    WRONG_ADDRESS = "wrong-address"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


# Failures that say the same about each call.
VERDICTS: dict[type[object] | None, KeyStatus] = {
    UpstreamCredentials: KeyStatus.REJECTED,
    UpstreamModelUnavailable: KeyStatus.MODEL_UNAVAILABLE,
}

READY = frozenset({KeyStatus.ACCEPTED, KeyStatus.UNKNOWN})
LEVELS = {KeyStatus.ACCEPTED: logging.INFO, KeyStatus.UNKNOWN: logging.WARNING}  # others: ERROR

SENTENCES = {
    KeyStatus.ACCEPTED: "OPENAI_API_KEY is accepted: {seen}.",
    KeyStatus.REJECTED: "OPENAI_API_KEY is rejected: {seen}. Put a valid key in its place.",
    KeyStatus.MODEL_UNAVAILABLE: "OPENAI_MODEL {model!a} is not available: {seen}.",
    KeyStatus.WRONG_ADDRESS: (
        "OPENAI_BASE_URL does not lead to an OpenAI API: {seen}. Should it end in /v1?"
    ),
    KeyStatus.UNREACHABLE: "OPENAI_API_KEY is not checked yet: {seen}.",
    KeyStatus.UNKNOWN: "Ready, but it is unknown whether OPENAI_API_KEY is accepted: {seen}.",
}

# A code or content type that may be logged: nothing long, no text, and nothing like a key.
WORD = re.compile(r"[A-Za-z_./+-]{1,64}|[0-9]{1,6}")


@dataclass(frozen=True)
class Verdict:
    status: KeyStatus
    sentence: str = ""
    """For the operator: what was seen and what to do about it."""


class _Answer:
    """An HTTP response of what may be any kind of server."""

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
            self.seen += f" to {_shown(response.headers['location'])}"
        elif WORD.fullmatch(detail) and detail != self.seen:
            self.seen += f" {detail}"

    def has_model(self) -> bool:
        """Whether it is a model, or a list of models."""
        listed = self.body.get("data") if isinstance(self.body, dict) else self.body
        first = listed[0] if isinstance(listed, list) and listed else self.body
        return self.status == 200 and isinstance(first, dict) and bool(first.get("id"))

    def verdict(self) -> KeyStatus | None:
        """What is certain whichever request was answered."""
        if self.error and (known := by_code(self.error)) in VERDICTS:
            return VERDICTS[known]
        if self.http_status >= 500 or self.http_status == 407:  # 407 is a proxy's
            return KeyStatus.UNREACHABLE
        return None

    def dry_call_verdict(self, model: str) -> KeyStatus:
        if verdict := self.verdict():
            return verdict
        if self.status == 404 and model in str(self.error):  # the URL does not hold it
            return KeyStatus.MODEL_UNAVAILABLE
        if self.is_page or self.status in (404, 405) or 300 <= self.status < 400:
            return KeyStatus.WRONG_ADDRESS
        if self.error is None:
            # Some servers answer even a chat without messages.
            is_reply = isinstance(self.body, dict) and "choices" in self.body
            return KeyStatus.ACCEPTED if is_reply else KeyStatus.UNKNOWN
        known = type(translate(self.error))
        has_refused_content = self.status in (400, 422)
        return VERDICTS.get(known, KeyStatus.ACCEPTED if has_refused_content else KeyStatus.UNKNOWN)


def _shown(url: str) -> str:
    """Without what may be secret."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "no URL"
    return str(parsed.copy_with(userinfo=b"", query=None, fragment=None))


async def _answer(settings: Settings, send: Callable[[Any], Any]) -> _Answer:
    try:
        response = await send_once(settings, send)
    except openai.APIStatusError as error:
        return _Answer(error.response, error)
    return _Answer(response, error_in(response.content, response))


async def try_key(settings: Settings, seconds: float) -> Verdict:
    """Ask once. Takes `seconds` at most.

    Raises:
        SettingsError: the environment names a proxy or certificates that cannot be used.
    """
    proxy = proxy_for(httpx2.URL(settings.openai_base_url))
    model, base_url = settings.openai_model, _shown(settings.openai_base_url).rstrip("/")
    by_proxy = f" by the proxy {_shown(proxy)}" if proxy else ""
    path = f"/models/{quote(model, safe='')}"
    asked = f"GET {base_url}{path}{by_proxy}"
    try:
        async with asyncio.timeout(seconds):
            answer = await _answer(settings, lambda client: client.get(path, **BARE))
            status = KeyStatus.ACCEPTED if answer.has_model() else answer.verdict()
            if status is None:
                asked = f"POST {base_url}/chat/completions{by_proxy}"
                # Both limits, for servers that know one of them and reply all the same.
                body = {"model": model, "messages": [], "max_completion_tokens": 1, "max_tokens": 1}
                answer = await _answer(
                    settings, lambda client: client.post("/chat/completions", body=body, **BARE)
                )
                status = answer.dry_call_verdict(model)
        seen = f"{asked} answered {answer.seen}"
    except TimeoutError:
        status, seen = KeyStatus.UNREACHABLE, f"{asked} had no answer within {seconds:g} s"
    # The SDK does not wrap a RequestError that is raised while it reads the body of an error.
    except (openai.APIConnectionError, httpx2.RequestError) as error:
        status, seen = KeyStatus.UNREACHABLE, f"{asked} failed with {describe(error)}"
    return Verdict(status, SENTENCES[status].format(seen=seen.rstrip("."), model=model))


def try_key_at_start(settings: Settings) -> Verdict:
    """Ask once, for `START_SECONDS` at most; UNCHECKED if there is no verdict by then.

    Raises:
        SettingsError: as `try_key`.
    """
    verdict: Future[Verdict] = Future()

    def ask() -> None:
        try:
            verdict.set_result(asyncio.run(try_key(settings, START_SECONDS)))
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            verdict.set_exception(error)

    # A daemon thread, because nothing ends a name resolution that hangs.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return verdict.result(START_SECONDS)
    except TimeoutError:
        return Verdict(KeyStatus.UNCHECKED)


class KeyCheck:
    """Repeats the check until the service is ready; `/readyz` shows the latest status."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verdict = Verdict(KeyStatus.UNCHECKED)

    @property
    def status(self) -> KeyStatus:
        return self._verdict.status

    @property
    def is_ready(self) -> bool:
        return self.status in READY

    async def run(self) -> None:
        await AsyncRetrying(
            retry=retry_if_result(lambda is_ready: not is_ready),
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_SECONDS),
        )(self._ask)

    async def _ask(self) -> bool:
        try:
            verdict = await try_key(self._settings, TIMEOUT_SECONDS)
        except Exception:
            logger.exception("Unhandled exception in the key check")
            return False
        if verdict != self._verdict:
            logger.log(LEVELS.get(verdict.status, logging.ERROR), verdict.sentence)
        self._verdict = verdict
        return self.is_ready

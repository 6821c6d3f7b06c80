"""Checks whether OpenAI accepts the key and the model, at no cost.

First `GET /models/{model}`. If that is inconclusive (a restricted key, a server without that path),
a dry call decides: a chat without messages, which OpenAI authenticates and then rejects.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import httpx2
import openai
from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from ..errors import UpstreamCredentials, UpstreamError, UpstreamModelUnavailable, describe
from ..settings import Settings
from .client import send_once
from .connections import proxy_for
from .error_mapping import by_code, is_page, translate

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0  # of one check, both requests included
START_SECONDS = 1.9  # how long the check may delay the start of the server
LONGEST_WAIT_SECONDS = 60  # between two checks


class KeyStatus(StrEnum):
    UNCHECKED = "unchecked"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    MODEL_UNAVAILABLE = "model-unavailable"
    WRONG_ADDRESS = "wrong-address"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


# Failures of either request that settle the check.
VERDICTS: dict[type[object] | None, KeyStatus] = {
    UpstreamCredentials: KeyStatus.REJECTED,
    UpstreamModelUnavailable: KeyStatus.MODEL_UNAVAILABLE,
}

# The statuses that make the service ready, with the level of the log line; others: ERROR.
READY = {KeyStatus.ACCEPTED: logging.INFO, KeyStatus.UNKNOWN: logging.WARNING}

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


@dataclass(frozen=True)
class Verdict:
    status: KeyStatus
    sentence: str = ""
    """The log line: what was seen and what to do about it."""


async def try_key(settings: Settings, seconds: float) -> Verdict:
    """Check once, within `seconds`.

    Raises:
        SettingsError: the proxy or the certificates that the environment names are unusable.
    """
    proxy = proxy_for(httpx2.URL(settings.openai_base_url))
    base_url, model = settings.openai_base_url, settings.openai_model
    path = f"/models/{quote(model, safe='')}"
    dry_call = {
        "path": "/chat/completions",
        # A server that replies despite the empty messages generates one token. Servers know one of
        # these two limits.
        "body": {"model": model, "messages": [], "max_completion_tokens": 1, "max_tokens": 1},
        "cast_to": httpx2.Response,
    }
    asked = f"GET {base_url}{path}"
    try:
        async with asyncio.timeout(seconds):
            response, error = await _ask(
                settings, lambda client: client.get(path, cast_to=httpx2.Response)
            )
            status = KeyStatus.ACCEPTED if _has(response, "id") else VERDICTS.get(by_code(error))
            if status is None:
                asked = f"POST {base_url}/chat/completions"
                response, error = await _ask(settings, lambda client: client.post(**dry_call))
                status = _dry_call_status(response, error, model)
        seen = f"answered {_summary(response, error)}"
    except TimeoutError:
        status, seen = KeyStatus.UNREACHABLE, f"had no answer within {seconds:g} s"
    # The SDK does not wrap a RequestError that occurs while it reads an error's body.
    except (openai.APIConnectionError, httpx2.RequestError) as failure:
        status, seen = KeyStatus.UNREACHABLE, f"failed with {describe(failure)}".rstrip(".")
    if proxy:
        asked += f" by the proxy {httpx2.URL(proxy).copy_with(userinfo=b'')}"
    return Verdict(status, SENTENCES[status].format(seen=f"{asked} {seen}", model=model))


async def _ask(
    settings: Settings, send: Callable[[Any], Any]
) -> tuple[httpx2.Response, openai.APIStatusError | None]:
    try:
        return await send_once(settings, send), None
    except openai.APIStatusError as error:
        return error.response, error


def _has(response: httpx2.Response, field: str) -> bool:
    """Whether it is a success with this field in its JSON."""
    return response.is_success and not is_page(response) and f'"{field}"' in response.text


def _dry_call_status(
    response: httpx2.Response, error: openai.APIStatusError | None, model: str
) -> KeyStatus:
    if error is None:  # some servers reply even to a chat without messages
        return KeyStatus.ACCEPTED if _has(response, "choices") else KeyStatus.WRONG_ADDRESS
    if error.status_code >= 500 or error.status_code == 407:  # 407: from a proxy
        return KeyStatus.UNREACHABLE
    # Where no code says so, a 404 is not about the model: the dry call's URL does not have it.
    is_about_model = by_code(error) or model in response.text
    is_html = response.headers.get("content-type", "").startswith("text/html")
    if is_html or (error.status_code == 404 and not is_about_model):
        return KeyStatus.WRONG_ADDRESS
    ours = translate(error)
    if verdict := VERDICTS.get(type(ours)):
        return verdict
    if error.status_code in (400, 422) and not is_page(response):
        return KeyStatus.ACCEPTED
    is_permanent = type(ours) is UpstreamError and not ours.is_retryable
    return KeyStatus.WRONG_ADDRESS if is_permanent else KeyStatus.UNKNOWN


def _summary(response: httpx2.Response, error: openai.APIStatusError | None) -> str:
    """Status and cause, but no text of the body: it may quote the key."""
    if location := response.headers.get("location"):
        return f"{response.status_code} to {location.partition('?')[0]}"
    code = str(error.code or error.type or "") if error else ""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    return f"{response.status_code} {code if code.isidentifier() else media_type}".rstrip()


def try_key_at_start(settings: Settings) -> Verdict:
    """Check once, within `START_SECONDS`; UNCHECKED if there is no verdict by then."""
    verdicts = [Verdict(KeyStatus.UNCHECKED)]

    def check() -> None:
        with suppress(Exception):  # `KeyCheck` will run into it again and log it
            verdicts.append(asyncio.run(try_key(settings, START_SECONDS)))

    # Daemon: a name resolution that hangs cannot be cancelled, and must not block the exit.
    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    thread.join(START_SECONDS)
    return verdicts[-1]


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
        )(self._check)

    async def _check(self) -> bool:
        try:
            verdict = await try_key(self._settings, TIMEOUT_SECONDS)
        except Exception:
            logger.exception("Unhandled exception in the key check")
            return False
        if verdict != self._verdict:
            logger.log(READY.get(verdict.status, logging.ERROR), verdict.sentence)
        self._verdict = verdict
        return self.is_ready

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
from typing import Any
from urllib.parse import quote

import httpx2
import openai
from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from ..errors import describe
from ..settings import Settings
from .client import send_once
from .connections import proxy_for
from .error_bodies import error_in
from .key_verdict import Answer, KeyStatus, without_secrets

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0  # of one check, both requests included
START_SECONDS = 1.9  # how long the check may delay the start of the server
LONGEST_WAIT_SECONDS = 60  # between two checks

# Arguments of the SDK's `get` and `post`: return the raw response, without the SDK's timeout.
BARE: dict[str, Any] = {"cast_to": httpx2.Response, "options": {"timeout": None}}

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


@dataclass(frozen=True)
class Verdict:
    status: KeyStatus
    sentence: str = ""
    """The log line: what was seen and what to do about it."""


async def _answer(settings: Settings, send: Callable[[Any], Any]) -> Answer:
    try:
        response = await send_once(settings, send)
    except openai.APIStatusError as error:
        return Answer(error.response, error)
    return Answer(response, error_in(response.content, response))


async def try_key(settings: Settings, seconds: float) -> Verdict:
    """Check once, within `seconds`.

    Raises:
        SettingsError: the proxy or the certificates that the environment names are unusable.
    """
    proxy = proxy_for(httpx2.URL(settings.openai_base_url))
    model, base_url = settings.openai_model, without_secrets(settings.openai_base_url).rstrip("/")
    by_proxy = f" by the proxy {without_secrets(proxy)}" if proxy else ""
    path = f"/models/{quote(model, safe='')}"
    asked = f"GET {base_url}{path}{by_proxy}"
    try:
        async with asyncio.timeout(seconds):
            answer = await _answer(settings, lambda client: client.get(path, **BARE))
            status = KeyStatus.ACCEPTED if answer.has_model() else answer.verdict()
            if status is None:
                asked = f"POST {base_url}/chat/completions{by_proxy}"
                # A server that replies despite the empty messages generates one token. Servers know
                # one of these two limits.
                body = {"model": model, "messages": [], "max_completion_tokens": 1, "max_tokens": 1}
                answer = await _answer(
                    settings, lambda client: client.post("/chat/completions", body=body, **BARE)
                )
                status = answer.dry_call_verdict(model)
        seen = f"{asked} answered {answer.seen}"
    except TimeoutError:
        status, seen = KeyStatus.UNREACHABLE, f"{asked} had no answer within {seconds:g} s"
    # The SDK does not wrap a RequestError that occurs while it reads an error's body.
    except (openai.APIConnectionError, httpx2.RequestError) as error:
        status, seen = KeyStatus.UNREACHABLE, f"{asked} failed with {describe(error)}"
    return Verdict(status, SENTENCES[status].format(seen=seen.rstrip("."), model=model))


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
            logger.log(LEVELS.get(verdict.status, logging.ERROR), verdict.sentence)
        self._verdict = verdict
        return self.is_ready

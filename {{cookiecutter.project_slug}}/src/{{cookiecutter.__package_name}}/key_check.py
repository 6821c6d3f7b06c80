"""Whether OpenAI accepts our key, asked in the cheapest way: for one model's description."""

import asyncio
import logging
from enum import StrEnum

import httpx2
import openai
from openai.types import Model
from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from .connections import proxy_for, tls_context
from .settings import Settings

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 60


class KeyStatus(StrEnum):
    UNCHECKED = "unchecked"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RESTRICTED = "restricted"
    UNREACHABLE = "unreachable"


SENTENCES = {
    KeyStatus.REJECTED: "OpenAI rejects OPENAI_API_KEY: put a valid key in its place.",
    KeyStatus.RESTRICTED: "OPENAI_API_KEY may not read models: give it that permission.",
    KeyStatus.UNREACHABLE: "OPENAI_API_KEY is not checked yet: OpenAI cannot be reached.",
    KeyStatus.ACCEPTED: "OpenAI accepts OPENAI_API_KEY.",
}


async def try_key(settings: Settings) -> KeyStatus:
    """Ask once. Takes `TIMEOUT_SECONDS` at most, apart from resolving the host's name.

    Raises:
        SettingsError: the environment names a proxy or certificates that cannot be used.
    """
    proxy = proxy_for(httpx2.URL(settings.openai_base_url))
    async with openai.AsyncOpenAI(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url,
        max_retries=0,
        timeout=TIMEOUT_SECONDS,
        http_client=openai.DefaultAsyncHttpx2Client(
            transport=httpx2.AsyncHTTPTransport(verify=tls_context(), proxy=proxy)
        ),
    ) as client:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                model = await client.models.retrieve(settings.openai_model)
        except openai.APIStatusError as error:
            return _verdict(error)
        # The last two: the reply is no JSON, or too deep.
        except (openai.OpenAIError, TimeoutError, ValueError, RecursionError):
            return KeyStatus.UNREACHABLE
    # The SDK returns whatever came with status 200, a hotel's sign-in page included.
    is_model = isinstance(model, Model) and bool(model.id)
    return KeyStatus.ACCEPTED if is_model else KeyStatus.UNREACHABLE


def _verdict(error: openai.APIStatusError) -> KeyStatus:
    if error.status_code in (401, 403):
        # Restricted keys get 401 as well; this code alone says that the key itself is wrong.
        return KeyStatus.REJECTED if error.code == "invalid_api_key" else KeyStatus.RESTRICTED
    # Who says that the model is unknown, or that we ask too often, has let the key pass.
    has_passed = error.status_code in (400, 404, 405, 429)
    return KeyStatus.ACCEPTED if has_passed else KeyStatus.UNREACHABLE


class KeyCheck:
    """Asks until the key is accepted; `/readyz` shows how it stands."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.status = KeyStatus.UNCHECKED

    async def run(self) -> None:
        await AsyncRetrying(
            retry=retry_if_result(lambda status: status is not KeyStatus.ACCEPTED),
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_SECONDS),
        )(self._ask)

    async def _ask(self) -> KeyStatus:
        status = await try_key(self._settings)
        if status is not self.status:
            logger.log(
                logging.INFO if status is KeyStatus.ACCEPTED else logging.ERROR,
                SENTENCES[status],
            )
        self.status = status
        return status

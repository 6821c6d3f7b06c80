"""The SDK's client."""

from openai import DefaultHttpx2Client, OpenAI

from ..settings import Settings
from .connections import attempt_timeout
from .transport import Transport, raise_status


def open_client(settings: Settings, transport: Transport) -> OpenAI:
    return OpenAI(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url,
        timeout=attempt_timeout(settings),
        max_retries=0,  # `retries` is the one layer
        http_client=DefaultHttpx2Client(
            transport=transport,
            event_hooks={"response": [raise_status]},
            follow_redirects=False,  # each would be a request more, and a POST become a GET
        ),
    )

"""What the calls of endpoints that use the SDK's methods count towards TOKEN_LIMIT."""

from collections.abc import Iterator
from typing import Any

import pytest

from ..conftest import Service, make_settings
from ..test_recipes import serving_recipes
from .test_token_limit import LIMITS, Client
from dev.offline_openai import OfflineOpenAI


@pytest.fixture(scope="module")
def recipes(_offline: OfflineOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("recipes")
    with serving_recipes(make_settings(_offline, **LIMITS), folder) as service:
        yield service


@pytest.mark.parametrize(
    ("request_", "used"),
    [
        ({"endpoint": "/v1/embeddings", "json": {"texts": ["one two", "three"]}}, 3),
        ({"endpoint": "/v1/responses", "params": {"question": "one two"}}, 2 + 12),
        ({"endpoint": "/v1/responses/stream", "params": {"question": "one two"}}, 2 + 12),
        # Two rounds: the question and a call of a tool; the question, the output and a reply.
        ({"endpoint": "/v1/assistant", "params": {"question": "Sunny?"}}, 1 + 2 + 6 + 15),
    ],
)
def test_the_usage_of_any_call_of_the_sdk_counts(
    request_: dict[str, Any], used: int, recipes: Service, offline: OfflineOpenAI
) -> None:
    client = Client(recipes)
    assert client.post(**request_).is_success
    assert client.used() == used


def test_streamed_rounds_without_usage_count_as_the_most_that_they_may_cost(
    recipes: Service, offline: OfflineOpenAI
) -> None:
    """Its recipe does not ask for the usage. Without an `Operation`, this is MAX_OUTPUT_TOKENS."""
    client = Client(recipes)
    response = client.post("/v1/assistant/stream", params={"question": "Sunny?"})
    assert "event: error" not in response.text
    assert client.used() == 50


def test_a_background_call_settles_what_it_has_cost(
    recipes: Service, offline: OfflineOpenAI
) -> None:
    client = Client(recipes)
    assert client.post("/v1/feedback", params={"text": "Great!"}).status_code == 202
    assert 0 < client.used() < 50

import gc

import pytest

from .conftest import Service

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("endpoint", "media_type"),
    [("/v1/chat", "application/json"), ("/v1/chat/stream", "text/event-stream")],
)
def test_openapi_says_what_an_endpoint_answers(
    endpoint: str, media_type: str, service: Service
) -> None:
    document = service.client.get("/openapi.json").json()
    responses = document["paths"][endpoint]["post"]["responses"]
    assert set(responses.pop("200")["content"]) == {media_type}
    assert {status: set(answer["content"]) for status, answer in responses.items()} == {
        status: {PROBLEM} for status in ("400", "413", "422", "500", "502", "503", "504")
    }


def test_the_documentation_is_a_page(service: Service) -> None:
    assert "text/html" in service.client.get("/docs").headers["content-type"]


def test_the_garbage_collector_leaves_alone_what_is_there_to_stay(service: Service) -> None:
    """Which is most of what there is: it would take a fifth of the CPU."""
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == 20_000

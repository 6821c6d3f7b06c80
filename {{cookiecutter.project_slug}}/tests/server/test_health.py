from collections.abc import Callable
from contextlib import ExitStack

import pytest

from ..conftest import Service, ask_without_reading, wait_until
from dev.offline_openai import OfflineOpenAI, Scripted


def test_livez_is_there_at_once(service: Service) -> None:
    response = service.client.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("probe", ["/livez", "/readyz"])
def test_probes_answer_head_as_they_answer_get(probe: str, service: Service) -> None:
    response = service.client.head(probe)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == service.client.get(probe).headers["content-length"]


def test_readyz_says_how_the_key_stands(service: Service) -> None:
    response = service.client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "ready": True,
        "shutting_down": False,
        "checks": {"openai_api_key": "accepted"},
    }


def test_probes_are_answered_while_calls_are_slow(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """With more calls than any pool has threads; a blocked event loop would answer them first."""
    service = serve(attempt_timeout_seconds=20, deadline_seconds=20)
    offline.script(Scripted(delay=15, times=60))
    with ExitStack() as clients:
        for _ in range(60):
            clients.enter_context(ask_without_reading(service, "/v1/chat"))
        wait_until(lambda: offline.received)
        for _ in range(5):
            assert service.client.get("/livez").is_success
            assert service.client.get("/readyz").is_success
        assert not any(request.finished for request in offline.received)

"""`python -m` the package, as a process of its own."""

import json
import signal

import httpx2
import pytest

from .conftest import KEY, free_port, process, wait_until
from dev.offline_openai import OfflineOpenAI, Scripted


def env(offline: OfflineOpenAI, **changed: str) -> dict[str, str]:
    values = {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "gpt-test", "OPENAI_BASE_URL": offline.url}
    return values | changed


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).is_success
    except httpx2.TransportError:
        return False


def test_without_a_key_it_says_so_in_one_line() -> None:
    with process(OPENAI_MODEL="gpt-test") as service:
        printed, _ = service.communicate(timeout=20)
    assert service.returncode == 78
    assert printed.startswith("OPENAI_API_KEY is not set: ")
    assert printed.count("\n") == 1


def test_with_a_rejected_key_it_says_so_in_one_line(offline: OfflineOpenAI) -> None:
    offline.script(
        Scripted(path="/v1/models", status=401, code="invalid_api_key", message=f"Wrong: {KEY}")
    )
    with process(**env(offline)) as service:
        printed, _ = service.communicate(timeout=20)
    assert service.returncode == 78
    assert printed == "OpenAI rejects OPENAI_API_KEY: put a valid key in its place.\n"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_and_stops(workers: str, offline: OfflineOpenAI) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process(**env(offline, PORT=str(port), WORKERS=workers, LOG_FORMAT="json")) as service:
        wait_until(lambda: answers(f"{url}/readyz"), seconds=60)
        offline.script(Scripted(status=401, code="invalid_api_key", message=f"Wrong: {KEY}"))
        body = {"messages": [{"role": "user", "content": "?"}]}
        failed = httpx2.post(f"{url}/v1/chat", json=body, headers={"x-request-id": "one"})
        assert failed.json()["type"] == "urn:problem-type:upstream-credentials"
        assert httpx2.post(f"{url}/v1/chat", json=body).is_success
        service.send_signal(signal.SIGTERM)
        printed, _ = service.communicate(timeout=20)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert {line["message"] for line in lines if line["request_id"] == "one"} == {
        "upstream-credentials: AuthenticationError: Error code: 401 - Wrong: [redacted]",
        "POST /v1/chat 502",
    }
    assert any("shutdown complete" in line["message"] for line in lines)
    assert KEY not in printed

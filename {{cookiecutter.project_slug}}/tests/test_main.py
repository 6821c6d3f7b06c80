"""`python -m` the package, as a process of its own."""

import json
import signal

import httpx2

from .conftest import KEY, QUESTION, free_port, process, wait_until
from dev.offline_openai import OfflineOpenAI, Scripted


def env(offline: OfflineOpenAI, **changed: str) -> dict[str, str]:
    values = {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "gpt-test", "OPENAI_BASE_URL": offline.url}
    return values | changed


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).is_success
    except httpx2.TransportError:
        return False


def test_without_a_key_or_with_a_rejected_one_it_says_so_in_one_line(
    offline: OfflineOpenAI,
) -> None:
    offline.script(
        Scripted(path="/v1/models", status=401, code="invalid_api_key", message=f"Wrong: {KEY}")
    )
    with process(OPENAI_MODEL="gpt-test") as keyless, process(**env(offline)) as rejected:
        printed, _ = keyless.communicate(timeout=60)
        assert keyless.returncode == 78
        assert printed.startswith("OPENAI_API_KEY is not set: ")
        assert printed.count("\n") == 1

        printed, _ = rejected.communicate(timeout=60)
        assert rejected.returncode == 78
        assert printed == "OpenAI rejects OPENAI_API_KEY: put a valid key in its place.\n"


def test_it_serves_and_stops(offline: OfflineOpenAI) -> None:
    """With one worker and with two, at the same time: starting takes the longest."""
    ports = [str(free_port()), str(free_port())]
    settings = [
        env(offline, PORT=port, WORKERS=workers, LOG_FORMAT="json")
        for port, workers in zip(ports, "12", strict=True)
    ]
    with process(**settings[0]) as one, process(**settings[1]) as two:
        for port, service in zip(ports, (one, two), strict=True):
            url = f"http://127.0.0.1:{port}"
            check_requests(url, offline)
            service.send_signal(signal.SIGTERM)
            printed, _ = service.communicate(timeout=60)
            assert service.returncode == 0
            check_log(printed)


def check_requests(url: str, offline: OfflineOpenAI) -> None:
    wait_until(lambda: answers(f"{url}/readyz"), seconds=60)
    offline.script(Scripted(status=401, code="invalid_api_key", message=f"Wrong: {KEY}"))
    failed = httpx2.post(f"{url}/v1/chat", json=QUESTION, headers={"x-request-id": "one"})
    assert failed.json()["type"] == "urn:problem-type:upstream-credentials"
    assert httpx2.post(f"{url}/v1/chat", json=QUESTION).is_success


def check_log(printed: str) -> None:
    lines = [json.loads(line) for line in printed.splitlines()]
    assert {line["message"] for line in lines if line["request_id"] == "one"} == {
        "upstream-credentials: AuthenticationError: Error code: 401 - Wrong: [redacted]",
        "POST /v1/chat 502",
    }
    assert any("shutdown complete" in line["message"] for line in lines)
    assert KEY not in printed

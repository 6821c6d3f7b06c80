import pytest

from .conftest import app, make_settings, serving
from dev.offline_openai import OfflineOpenAI


@pytest.mark.parametrize("is_excepted", [False, True])
def test_the_environment_names_a_proxy(
    is_excepted: bool, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", offline.url.removesuffix("/v1"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1" + ",openai.invalid" * is_excepted)
    settings = make_settings(offline, openai_base_url="http://openai.invalid/v1", max_attempts=1)
    with serving(app.create_app(settings)) as service:
        problem = service.chat().json()
    asked = {request.path for request in offline.received}
    assert ("http://openai.invalid/v1/chat/completions" in asked) is not is_excepted
    assert (problem["type"] == "urn:problem-type:upstream-unreachable") is is_excepted

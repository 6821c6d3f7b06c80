import pytest

from .conftest import app, make_settings, serving
from dev.offline_openai import OfflineOpenAI


@pytest.mark.parametrize(
    ("environment", "is_used"),
    [
        ({"HTTP_PROXY": "http://PROXY"}, True),
        ({"HTTP_PROXY": "http://PROXY", "NO_PROXY": "127.0.0.1,openai.invalid:81"}, False),
        ({"ALL_PROXY": "PROXY"}, True),
    ],
)
def test_the_environment_names_a_proxy(
    environment: dict[str, str],
    is_used: bool,
    offline: OfflineOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = offline.url.removeprefix("http://").removesuffix("/v1")
    for name, value in ({"NO_PROXY": "127.0.0.1"} | environment).items():
        monkeypatch.setenv(name, value.replace("PROXY", address))
    url = "http://openai.invalid:81/v1"
    settings = make_settings(offline, openai_base_url=url, max_attempts=1)
    with serving(app.create_app(settings)) as service:
        problem = service.chat().json()
    asked = {request.path for request in offline.received}
    assert any(path.endswith("/v1/chat/completions") for path in asked) is is_used
    assert (problem["type"] == "urn:problem-type:upstream-unreachable") is not is_used

from pathlib import Path

import pytest

from .conftest import KEY, connections, settings

ENOUGH = {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "gpt-test"}


def load(monkeypatch: pytest.MonkeyPatch, **env: str) -> settings.Settings:
    for name, value in (ENOUGH | env).items():
        monkeypatch.setenv(name, value)
    return settings.load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, **env: str) -> str:
    with pytest.raises(settings.SettingsError) as caught:
        load(monkeypatch, **env)
    assert caught.value.__context__ is None, "a traceback would show the values"
    return str(caught.value)


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(monkeypatch, MAX_ATTEMPTS="2", ALLOWED_MODELS=" gpt-a, gpt-b ,", PORT="81")
    assert (loaded.max_attempts, loaded.port) == (2, 81)
    assert loaded.allowed_models == {"gpt-a", "gpt-b"}


def test_a_dotenv_file_sets_them_but_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(f"OPENAI_API_KEY={KEY}\nOPENAI_MODEL=gpt-file\nPORT=82\nOTHER=1\n")
    monkeypatch.setenv("PORT", "83")
    loaded = settings.load_settings()
    assert (loaded.openai_model, loaded.port) == ("gpt-file", 83)


def test_empty_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, MAX_ATTEMPTS="", OPENAI_BASE_URL="").max_attempts == 4


def test_an_attempt_has_all_the_time_of_the_deadline_unless_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = load(monkeypatch, DEADLINE_SECONDS="300")
    assert connections.attempt_timeout(loaded).read == 300
    loaded = load(monkeypatch, DEADLINE_SECONDS="300", ATTEMPT_TIMEOUT_SECONDS="7")
    assert connections.attempt_timeout(loaded).read == 7


def test_what_is_missing_is_named_in_one_line() -> None:
    with pytest.raises(settings.SettingsError) as caught:
        settings.load_settings()
    message = str(caught.value)
    assert message.startswith("OPENAI_API_KEY and OPENAI_MODEL are not set: put")
    assert ".env" in message
    assert "`make demo` needs no key" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (f"{KEY}\n", "OPENAI_API_KEY has white space"),
        (f" {KEY}", "OPENAI_API_KEY has white space"),
        ("   ", "OPENAI_API_KEY has white space"),
        (f"{KEY}\x07", "OPENAI_API_KEY has characters"),
        (f"{KEY}é", "OPENAI_API_KEY has characters"),
        (KEY.replace("t-", "t "), "OPENAI_API_KEY has characters"),
        ("sk-...", "OPENAI_API_KEY is a placeholder"),
        ("your-api-key", "OPENAI_API_KEY is a placeholder"),
        ("<OPENAI_API_KEY>", "OPENAI_API_KEY is a placeholder"),
        (f"sk-proj-{'x' * 50}", "OPENAI_API_KEY is a placeholder"),
        ("changeme", "OPENAI_API_KEY is a placeholder"),
    ],
)
def test_a_malformed_key_is_refused_by_name_and_not_by_value(
    key: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(monkeypatch, OPENAI_API_KEY=key)
    assert message.startswith(sentence)
    assert key.strip(" \n") not in message.replace("OPENAI_API_KEY", "") or not key.strip()


@pytest.mark.parametrize("key", ["x", "your-api-key", "sk-..."])
def test_elsewhere_keys_have_any_shape(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(monkeypatch, OPENAI_API_KEY=key, OPENAI_BASE_URL="http://localhost:11434/v1")
    assert loaded.openai_api_key.get_secret_value() == key


def test_a_real_key_may_hold_any_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, OPENAI_API_KEY="sk-proj-" + "aYourXXXapiQ" * 8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "api.openai.com"),
        ("OPENAI_BASE_URL", "https://"),
        ("OPENAI_BASE_URL", "https://x:99999/v1"),
        ("OPENAI_BASE_URL", "https://x:y/v1"),
        ("OPENAI_BASE_URL", "https://x/v1\n"),
        ("MAX_ATTEMPTS", "0"),
        ("DEADLINE_SECONDS", "-1"),
        ("ATTEMPT_TIMEOUT_SECONDS", "soon"),
        ("DEADLINE_SECONDS", "inf"),
        ("PORT", "70000"),
        ("LOG_LEVEL", "LOUD"),
        ("STREAM_USAGE", "perhaps"),
        ("MAX_TOKENS_PARAMETER", "tokens"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(monkeypatch, **{name: value})
    assert message.startswith(name)
    assert KEY not in message


def test_a_dotenv_file_in_another_encoding_is_refused() -> None:
    Path(".env").write_text(f"OPENAI_API_KEY={KEY}", encoding="utf-16")
    with pytest.raises(settings.SettingsError, match="UTF-8"):
        settings.load_settings()


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, PORT="x", MAX_ATTEMPTS="y")
    assert "PORT" in message
    assert "MAX_ATTEMPTS" in message


def test_the_key_is_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEY not in repr(load(monkeypatch))

import os
import random
import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import KEY, Service, app, environment, make_settings, serving, settings
from dev import settings_page
from dev.offline_openai import OfflineOpenAI

ENOUGH = {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "gpt-test"}


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a test may write a `.env`."""
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **env: str) -> settings.Settings:
    for name, value in (ENOUGH | env).items():
        monkeypatch.setenv(name, value)
    return environment.load_settings()


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
    loaded = environment.load_settings()
    assert (loaded.openai_model, loaded.port) == ("gpt-file", 83)


def test_every_setting_is_described() -> None:
    """By a docstring below it."""
    fields = settings.Settings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_the_page_of_settings_is_up_to_date() -> None:
    page = settings_page.page(settings.__package__)
    assert page == settings_page.PAGE.read_text("utf-8"), "`make docs` writes it anew"


def test_the_example_of_dotenv_names_settings_and_shows_their_defaults() -> None:
    example = (Path(__file__).parents[1] / ".env.example").read_text("utf-8")
    shown = dict(re.findall(r"^#?((?!COMPOSE_)[A-Z_]+)=(.*)$", example, re.MULTILINE))
    page = settings_page.PAGE.read_text("utf-8")
    defaults = {
        name: default.strip("`")
        for name, default in re.findall(r"^\| `(\w+)` \|.*?\| (.*?) ?\|", page, re.MULTILINE)
    }

    required = {name: value for name, value in shown.items() if defaults[name] == "required"}
    assert required.keys() == ENOUGH.keys()
    assert shown == {name: defaults[name] for name in shown} | required


@pytest.mark.parametrize("nothing", ["", "  ", '""', "''", "' '"])
def test_empty_and_blank_mean_unset(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unset = load(monkeypatch)
    optional = [
        name.upper() for name in settings.Settings.model_fields if name.upper() not in ENOUGH
    ]
    assert load(monkeypatch, **dict.fromkeys(optional, nothing)) == unset
    message = refusal(monkeypatch, **dict.fromkeys(ENOUGH, nothing))
    assert message.startswith("OPENAI_API_KEY is not set: ")
    assert "OPENAI_MODEL is not set: " in message


def test_white_space_and_quotes_around_a_value_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line end of a file, as in a secret of Kubernetes; the quotes of `docker --env-file`."""
    loaded = load(
        monkeypatch,
        OPENAI_API_KEY=f" '{KEY}'\n",
        OPENAI_MODEL="' gpt-padded '",
        OPENAI_BASE_URL=' "http://127.0.0.1:1/v1" ',
        PORT=" 81\n",
    )
    assert loaded.openai_api_key.get_secret_value() == KEY
    assert (loaded.openai_model, loaded.openai_base_url) == ("gpt-padded", "http://127.0.0.1:1/v1")
    assert loaded.port == 81


def test_choices_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(monkeypatch, LOG_LEVEL="info", LOG_FORMAT="JSON")
    assert (loaded.log_level, loaded.log_format) == ("INFO", "json")


def missing() -> str:
    with pytest.raises(settings.SettingsError) as caught:
        environment.load_settings()
    return str(caught.value)


def test_what_is_missing_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    where = f"put it into the environment, or into .env in {tmp_path}."
    assert missing() == f"OPENAI_API_KEY is not set: {where} OPENAI_MODEL is not set: {where}"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (f"{KEY}\x07", "OPENAI_API_KEY has white space, quotes or characters"),
        (f"{KEY}é", "OPENAI_API_KEY has white space, quotes or characters"),
        (KEY.replace("t-", "t "), "OPENAI_API_KEY has white space, quotes or characters"),
        (f'"{KEY}', "OPENAI_API_KEY has white space, quotes or characters"),
        ("sk-...", "OPENAI_API_KEY is a placeholder"),
        ("your-api-key", "OPENAI_API_KEY is a placeholder"),
        ("<OPENAI_API_KEY>", "OPENAI_API_KEY is a placeholder"),
        (f"sk-proj-{'x' * 50}", "OPENAI_API_KEY is a placeholder"),
        ("changeme", "OPENAI_API_KEY is a placeholder"),
        ("your_api_key_here", "OPENAI_API_KEY is a placeholder"),
        ("sk-your-openai-api-key", "OPENAI_API_KEY is a placeholder"),
        ("sk-proj-****", "OPENAI_API_KEY is a placeholder"),
        ("${OPENAI_API_KEY}", "OPENAI_API_KEY is a placeholder"),
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


def test_no_real_key_is_taken_for_a_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    letters, rng = string.ascii_letters + string.digits + "-_", random.Random(1)  # noqa: S311 - no secret
    for prefix in ("sk-", "sk-proj-", "sk-svcacct-", "sk-admin-", "") * 20:
        key = prefix + "".join(rng.choices(letters, k=40))  # the shortest had 48
        assert load(monkeypatch, OPENAI_API_KEY=key).openai_api_key.get_secret_value() == key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "api.openai.com"),
        ("OPENAI_BASE_URL", "https://"),
        ("OPENAI_BASE_URL", "https://x:y/v1"),
        ("OPENAI_BASE_URL", "localhost:11434/v1"),
        ("OPENAI_BASE_URL", "ftp://x/v1"),
        ("OPENAI_BASE_URL", "https://x y/v1"),
        ("OPENAI_BASE_URL", "https://x/v 1"),
        ("OPENAI_BASE_URL", "https://x\\v1"),
        ("OPENAI_BASE_URL", "https://x/v1\x07"),
        ("OPENAI_BASE_URL", "https://a..b/v1"),
        ("OPENAI_BASE_URL", f"https://{'a' * 64}/v1"),
        ("OPENAI_BASE_URL", "https://[::1/v1"),
        ("OPENAI_BASE_URL", "https://hunter2@x/v1"),
        ("OPENAI_BASE_URL", "https://user:hunter2@x/v1"),
        ("OPENAI_BASE_URL", "https://x/v1?key=hunter2"),
        ("OPENAI_BASE_URL", "https://x/v1?"),
        ("OPENAI_BASE_URL", "https://x/v1#hunter2"),
        ("OPENAI_MODEL", 'gpt-4"'),
        ("OPENAI_MODEL", os.fsdecode(b"gpt-\xff")),
        ("ALLOWED_MODELS", '["gpt-a", "gpt-b"]'),
        ("ROOT_PATH", "https://x/chat"),
        ("ROOT_PATH", "/a b"),
        ("ROOT_PATH", "/a?b"),
        ("ROOT_PATH", "/a//b"),
        ("ROOT_PATH", "/a/"),
        ("ROOT_PATH", "/"),
        ("ROOT_PATH", "a"),
        ("ROOT_PATH", "/é"),
        ("MAX_ATTEMPTS", "0"),
        ("DEADLINE_SECONDS", "-1"),
        ("ATTEMPT_TIMEOUT_SECONDS", "soon"),
        ("DEADLINE_SECONDS", "inf"),
        ("DEADLINE_SECONDS", "1e308"),
        ("ATTEMPT_TIMEOUT_SECONDS", "1e10"),
        ("QUEUE_TIMEOUT_SECONDS", "1e10"),
        ("SHUTDOWN_GRACE_SECONDS", str(10**20)),
        ("MAX_CONCURRENCY", str(10**9)),
        ("WORKERS", str(10**20)),
        ("MAX_QUEUE", "9" * 5000),
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
    assert message.startswith(f"{name} ")
    assert (message.count("\n"), message.count(". ")) == (0, 0), "one sentence"
    assert KEY not in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("HTTPS://API.example/v1/", "https://api.example/v1"),
        ("https://api.example/v1//", "https://api.example/v1"),
        ("https://api.example/v1/chat/completions", "https://api.example/v1"),
        ("https://api.example/v1/chat/completions/", "https://api.example/v1"),
        ("https://api.example", "https://api.example"),
        ("https://bücher.example/v1", "https://xn--bcher-kva.example/v1"),
        ("http://[::1]:11434/v1", "http://[::1]:11434/v1"),
    ],
)
def test_a_base_url_is_used_in_one_form(
    given: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(monkeypatch, OPENAI_BASE_URL=given).openai_base_url.rstrip("/") == used


def test_a_base_url_that_is_nearly_right_works(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    url = offline.url.replace("/v1", "/v1/chat/completions/").replace("http", "HTTP")
    service = serve(openai_base_url=url)
    assert service.chat().is_success
    assert service.stream().is_success
    assert [request.path for request in offline.received] == ["/v1/chat/completions"] * 2


def test_headers_of_the_sdk_are_sent(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = "X-A: b, c\nno header\n X-D : e"
    load(monkeypatch, OPENAI_ORG_ID="org-1", OPENAI_CUSTOM_HEADERS=headers)
    with serving(app.create_app(make_settings(offline))) as service:
        assert service.chat().is_success
    sent = offline.received[-1].headers
    assert (sent["openai-organization"], sent["x-a"], sent["x-d"]) == ("org-1", "b, c", "e")


MISSPELLED = {
    "MAX_CONCURENCY": "MAX_CONCURRENCY",
    "OPENAI_APIKEY": "OPENAI_API_KEY",
    "loglevel": "LOG_LEVEL",
    "OPENAI_MODLE": "OPENAI_MODEL",
    "ALLOWED_MODEL": "ALLOWED_MODELS",
}

# Of shells, conda, CI, Kubernetes, Mesos, other programs and the SDK.
OTHERS = """
    HOSTNAME HOSTTYPE HOSTS LOGNAME PORTS PORT0 SSH_HOST DB_HOST DB_PORT APP_PORT REDIS_PORT REPORT
    KUBERNETES_SERVICE_HOST KUBERNETES_PORT CHAT_SERVICE_PORT WEB_CONCURRENCY NUM_WORKERS RUST_LOG
    NPM_CONFIG_LOGLEVEL PGHOST PGPORT GOROOT GOROOT_PATH NODE_PATH PATH PYTHONPATH VIRTUAL_ENV
    CONDA_PREFIX BUILD HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY SSL_CERT_FILE FORWARDED_ALLOW_IPS
    GITHUB_WORKSPACE RUNNER_WORKSPACE CI_SERVER_HOST CI_SERVER_PORT CI_PROJECT_ROOT_NAMESPACE
    OPENAI_ORG_ID OPENAI_PROJECT_ID OPENAI_LOG OPENAI_ADMIN_KEY OPENAI_API_BASE OPENAI_API_TYPE
    OPENAI_API_VERSION OPENAI_WEBHOOK_SECRET OPENAI_CUSTOM_HEADERS AZURE_OPENAI_API_KEY
    ANTHROPIC_API_KEY MAX_RETRIES MAX_JOBS TIMEOUT TIMEOUT_SECONDS LOG_FILE LOG_DIR
"""


def test_a_misspelled_name_is_warned_about_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment and in `.env`."""
    for name, value in (ENOUGH | dict.fromkeys([*MISSPELLED, *OTHERS.split()], "1")).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAX_CONCURENCY", "hunter2")
    Path(".env").write_text("MAX_QUEU=hunter2\nPORTS=1\nANYTHING=2\n")
    expected = MISSPELLED | {"MAX_QUEU": "MAX_QUEUE"}
    assert sorted(environment.misspelled_names()) == sorted(
        f"{name.upper()} is not a setting: is {setting} meant?"
        for name, setting in expected.items()
    )


def test_the_misspelled_name_of_a_missing_setting_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_APIKEY", "hunter2")
    assert "OPENAI_APIKEY is not a setting: is OPENAI_API_KEY meant?" in missing()


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="needs a file that not even root reads"
)
def test_a_dotenv_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    Path(".env").symlink_to("/proc/self/mem")
    assert f".env in {tmp_path} cannot be read" in missing()
    assert "Input/output error" in missing()


def test_a_dotenv_file_in_another_encoding_is_refused() -> None:
    Path(".env").write_text(f"OPENAI_API_KEY={KEY}", encoding="utf-16")
    with pytest.raises(settings.SettingsError, match="UTF-8"):
        environment.load_settings()


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, PORT="x", MAX_ATTEMPTS="y")
    assert "PORT" in message
    assert "MAX_ATTEMPTS" in message


def test_the_key_is_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEY not in repr(load(monkeypatch))

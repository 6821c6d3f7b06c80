"""The command that makes keys, and the setting that lists their hashes."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from .conftest import (
    CLIENT_KEY,
    CLIENT_PAIR,
    KEY,
    PACKAGE,
    QUESTION,
    Service,
    environment,
    settings,
)
from dev.offline_openai import OfflineOpenAI

HASH = CLIENT_PAIR.partition(":")[2]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"{PACKAGE}.keys", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_a_key_and_its_pair(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """It needs no settings, and each run makes another key."""
    printed = [run("new", "web.a-1_b") for _ in range(2)]
    assert [(one.returncode, one.stderr) for one in printed] == [(0, "")] * 2
    keys = [word for one in printed for word in re.findall(r"svc_[0-9a-f]{48}", one.stdout)]
    pairs = [word for one in printed for word in re.findall(r"\S+:[0-9a-f]{64}", one.stdout)]
    assert len({*keys}) == len({*pairs}) == 2
    assert all(pair.startswith("web.a-1_b:") for pair in pairs)
    client = serve(service_api_keys=",".join(pairs)).client
    for key in keys:
        assert client.post("/v1/chat", json=QUESTION, headers={"X-API-Key": key}).is_success


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("new",),
        *(("new", name) for name in ("", "a:b", "é", "a\n", "x" * 65, "anonymous")),
    ],
)
def test_a_wrong_command_is_answered_by_its_usage_and_a_sentence(
    arguments: tuple[str, ...],
) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    usage, sentence = done.stderr.splitlines()
    assert usage.startswith(f"usage: python -m {PACKAGE}.keys")
    assert f"{PACKAGE}.keys" in sentence.partition(": error: ")[0]


def refusal(monkeypatch: pytest.MonkeyPatch, value: str) -> str:
    for name, text in (
        ("OPENAI_API_KEY", KEY),
        ("OPENAI_MODEL", "gpt-test"),
        ("SERVICE_API_KEYS", value),
    ):
        monkeypatch.setenv(name, text)
    with pytest.raises(settings.SettingsError) as caught:
        environment.load_settings()
    assert caught.value.__context__ is None, "a traceback would show the values"
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        CLIENT_KEY,
        HASH,
        f"web:{CLIENT_KEY}",
        f"web={HASH}",
        f"web {HASH}",
        f"web:{HASH[:-1]}",
        f"web:{HASH}0",
        f"web:{HASH.upper()}",
        f"web:{HASH[:-1]}g",
        f"web:sha256:{HASH}",
        f"a b:{HASH}",
        f"wéb:{HASH}",
        f":{HASH}",
        f"{'x' * 65}:{HASH}",
        f"anonymous:{HASH}",
        f"web:{HASH};app:{HASH}",
        f"web:{HASH}\napp:{HASH}",
        f"web:{HASH},{CLIENT_KEY}",
        f'["web:{HASH}"]',
        ",".join(f"web:{digit * 64}" for digit in "123"),
    ],
)
def test_malformed_keys_are_refused_in_one_sentence_without_their_value(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(monkeypatch, value)
    assert message.startswith("SERVICE_API_KEYS ")
    assert (message.count("\n"), message.count(". ")) == (0, 0), "one sentence"
    for secret in (CLIENT_KEY, HASH, HASH[:16], "1" * 16, "wéb", "a b"):
        assert secret not in message


@pytest.mark.parametrize("value", [f" {CLIENT_PAIR} ,", f"'{CLIENT_PAIR}'", f",{CLIENT_PAIR},,"])
def test_white_space_quotes_and_spare_commas_do_not_matter(
    value: str, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    client = serve(service_api_keys=value).client
    assert client.post("/v1/chat", json=QUESTION, headers={"X-API-Key": CLIENT_KEY}).is_success

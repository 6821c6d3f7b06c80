"""`make load`, run as the function that it is."""

import re
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Service, wait_until
from dev import load
from dev.offline_openai import OfflineOpenAI, Scripted

Run = Callable[..., str]
QUOTA = Scripted(status=429, code="insufficient_quota", times=5)


@pytest.fixture
def run(service: Service, offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]) -> Run:
    """Put the service under load until OpenAI has had 50 requests, and then press Ctrl-C."""

    def press() -> None:
        wait_until(lambda: len(offline.received) >= 50)
        signal.raise_signal(signal.SIGINT)

    def run(*arguments: str) -> str:
        thread = threading.Thread(target=press)
        thread.start()
        assert load.main([service.url, "--callers", "2", "--seconds", "60", *arguments]) == 0
        thread.join()
        return capsys.readouterr().out

    return run


def test_ends_when_the_time_is_over(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main([service.url, "--seconds", "0.1"]) == 0
    assert " good answers in 0." in capsys.readouterr().out


def test_counts_answers_by_status_and_problem(run: Run, offline: OfflineOpenAI) -> None:
    offline.script(QUOTA)
    said = run()
    assert re.search(r"^ +\d+  503 upstream-quota-exhausted$", said, re.MULTILINE)
    assert re.search(r"^ +\d+  200$", said, re.MULTILINE)


def test_streams_are_good_if_they_end_well(run: Run, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(error_after=1, times=5), QUOTA)
    said = run("--stream")
    assert re.search(r"^ +\d+  200 ended by upstream-error$", said, re.MULTILINE)
    assert re.search(r"^ +\d+  503 upstream-quota-exhausted$", said, re.MULTILINE)
    assert re.search(r"^ +\d+  200$", said, re.MULTILINE)
    assert "seconds to the first chunk  p50 0." in said


def test_sends_the_headers_that_it_is_given() -> None:
    heads: list[bytes] = []

    def read_and_leave(server: socket.socket) -> None:
        with server.accept()[0] as caller:
            heads.append(caller.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=read_and_leave, args=(server,))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert load.main([url, "--header", "Authorization: Bearer of a test"]) == 1
        thread.join()
    assert b"Authorization: Bearer of a test\r\n" in heads[0]


def test_refuses_a_header_that_http_cannot_carry(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.main(["--header", "X-Name: Ł"])
    assert "a header is in ASCII" in capsys.readouterr().err


def test_shows_progress_and_sums_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SHOWN_EVERY", 0.001)
    progress, *_, summary = re.findall(r"^.* good .*$", run(), re.MULTILINE)
    assert " answers, in all " in progress
    assert " good answers in " in summary


def test_says_when_no_service_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as deaf:  # has a port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert load.main([url]) == 1
    assert capsys.readouterr().err.startswith(f"No service answers at {url} ")


@pytest.mark.parametrize(
    ("environment", "dotenv", "url"),
    [
        ({}, "", "http://127.0.0.1:8000"),
        ({}, "PORT=1\n", "http://127.0.0.1:1"),
        ({"PORT": "2"}, "PORT=1\n", "http://127.0.0.1:2"),
        ({"PORT": ""}, "HOST=0.0.0.0\n", "http://127.0.0.1:8000"),
        ({"HOST": "::", "PORT": "2"}, "", "http://[::1]:2"),
    ],
)
def test_goes_where_the_settings_have_the_service_listen(
    environment: dict[str, str],
    dotenv: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load.Address().url == url


def test_says_that_a_port_is_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(SystemExit):
        load.main([])
    assert "HOST or PORT, in the environment or in .env, is wrong" in capsys.readouterr().err

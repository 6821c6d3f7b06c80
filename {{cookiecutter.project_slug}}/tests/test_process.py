"""The service as a process of its own: `python -m` the package, and how it starts and stops."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
import uvicorn

from .conftest import (
    CLIENT_PAIR,
    KEY,
    NO_CERTIFICATES,
    PACKAGE,
    QUESTION,
    events,
    main,
    shutdown,
    wait_until,
)
from .processes import answers, env, get, post, process, started, stream
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]


@pytest.fixture
def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[object, str]]]:
    """Run `main` in this process, up to where it serves: its exit status, and what it prints."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    handled = {number: signal.getsignal(number) for number in shutdown.SIGNALS}
    listen, listeners = main.listen, []

    def listen_until_the_end(host: str, port: int) -> socket.socket:
        listeners.append(listen(host, port))
        return listeners[-1]

    monkeypatch.setattr(main, "listen", listen_until_the_end)
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)

    def run(**env: str) -> tuple[object, str]:
        status: object = None
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ({"PORT": "0"} | env).items():
                patch.setenv(name, value)
            try:
                main.main()
            except SystemExit as ended:
                status = ended.code
        return status, capsys.readouterr().err

    yield run
    root.setLevel(level)
    root.handlers[:] = handlers
    for number, handler in handled.items():
        signal.signal(number, handler)
    for listener in listeners:
        listener.close()


REJECTED = "OPENAI_API_KEY is rejected: {} answered {}. Put a valid key in its place.\n"


def test_a_process_that_cannot_start_names_the_reason_and_ends_with_status_78(
    offline: OfflineOpenAI,
) -> None:
    wrong = Scripted(path="/v1/models", status=401, code="invalid_api_key", message=f"Wrong: {KEY}")
    offline.script(wrong)
    with process(**env(offline)) as rejected:
        model = f"GET {offline.url}/models/gpt-test"
        assert rejected.end() == (78, REJECTED.format(model, "401 invalid_api_key"))


def test_a_key_that_only_the_dry_call_finds_rejected_is_refused(
    offline: OfflineOpenAI, run_main: Callable[..., tuple[object, str]]
) -> None:
    offline.script(Scripted(path="/v1/models", status=401))
    offline.script(Scripted(status=403, code="account_deactivated"))
    chat = f"POST {offline.url}/chat/completions"
    assert run_main(**env(offline)) == (78, REJECTED.format(chat, "403 account_deactivated"))


def test_workers_without_a_place_for_their_metrics(
    run_main: Callable[..., tuple[object, str]],
    offline: OfflineOpenAI,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As in a container whose file system is read-only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    status, said = run_main(WORKERS="2", **env(offline))

    assert status == 78
    assert "WORKERS need a writable directory for their metrics (No such file or directory)" in said
    assert run_main(**env(offline))[0] is None, "one worker needs none"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["missing", "file", ""])
def test_a_wrong_directory_for_metrics_is_refused(
    run_main: Callable[..., tuple[object, str]],
    offline: OfflineOpenAI,
    tmp_path: Path,
    name: str,
    workers: str,
) -> None:
    (tmp_path / "file").touch()
    directory = f"{tmp_path}/{name}" if name else ""

    changed = {"PROMETHEUS_MULTIPROC_DIR": directory, "WORKERS": workers}
    status, said = run_main(**env(offline, **changed))

    assert status == 78
    assert said.startswith(f"PROMETHEUS_MULTIPROC_DIR={directory} is no directory")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_process_may_have_as_many_connections_as_the_system_allows() -> None:
    code = f"""
import resource
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
from {PACKAGE} import process
process.allow_many_connections()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY is not set: "),
        ({"ALL_PROXY": "socks5://user:secret@127.0.0.1:9"}, "ALL_PROXY names no proxy "),
    ],
)
def test_a_wrong_environment_is_refused_in_one_line(
    changed: dict[str, str],
    sentence: str,
    offline: OfflineOpenAI,
    run_main: Callable[..., tuple[object, str]],
) -> None:
    status, printed = run_main(**env(offline, **changed))
    assert status == 78
    assert printed.startswith(sentence)
    assert printed.count("\n") == 1
    assert not offline.received


@pytest.mark.parametrize(
    "names",
    [
        {"HOST": "x86_64-conda-linux-gnu"},
        {"PORT": "BUSY"},
        {"PORT": "BUSY", "WORKERS": "2"},
        {"HOST": "203.0.113.7"},  # for documentation (RFC 5737)
        {"HOST": f"{'a' * 64}.example"},  # cannot be encoded
    ],
)
def test_an_address_that_cannot_be_listened_on_is_named_in_one_sentence(
    names: dict[str, str],
    offline: OfflineOpenAI,
    run_main: Callable[..., tuple[object, str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        changed = {name: value.replace("BUSY", port) for name, value in names.items()}
        status, printed = run_main(**env(offline, **changed))
    assert status == 78
    assert next(iter(names)) in printed
    assert names.get("HOST", "127.0.0.1") in printed
    assert (printed.count("\n"), printed.count(". ")) == (1, 0)
    assert not offline.received


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_listens_on_ipv6(
    offline: OfflineOpenAI, run_main: Callable[..., tuple[object, str]]
) -> None:
    status, printed = run_main(**env(offline, HOST="::1"))
    assert status is None
    assert "Listening on http://[::1]:" in printed


EVERY_NETWORK = [
    "0.0.0.0",  # noqa: S104 - bound for a moment, and nothing is served
    "0",  # another way to write it
    pytest.param("::", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")),
]


@pytest.mark.parametrize("host", EVERY_NETWORK)
def test_other_machines_are_not_served_without_keys(
    host: str, offline: OfflineOpenAI, run_main: Callable[..., tuple[object, str]]
) -> None:
    status, printed = run_main(**env(offline, HOST=host))
    assert status == 78
    assert printed.startswith(f"HOST={host} ")
    assert "SERVICE_API_KEYS" in printed
    assert "ALLOW_ANONYMOUS" in printed
    assert (printed.count("\n"), printed.count(". ")) == (1, 0)
    assert not offline.received


@pytest.mark.parametrize("host", EVERY_NETWORK)
@pytest.mark.parametrize(
    "changed", [{"SERVICE_API_KEYS": CLIENT_PAIR}, {"ALLOW_ANONYMOUS": "true"}]
)
def test_other_machines_are_served_with_keys_or_if_everybody_may_call(
    host: str,
    changed: dict[str, str],
    offline: OfflineOpenAI,
    run_main: Callable[..., tuple[object, str]],
) -> None:
    status, printed = run_main(**env(offline, HOST=host, **changed))
    assert status is None
    assert re.search(r"Listening on http://(0\.0\.0\.0|\[::\]):", printed)


def test_it_serves_and_stops() -> None:
    """At the same time, for starting takes long."""
    with ThreadPoolExecutor() as pool:
        checks = [
            pool.submit(check_one_process),
            pool.submit(check_workers),
            pool.submit(check_that_calls_are_cut),
        ]
    for check in checks:
        check.result()


# An owner's program, with an endpoint whose thread never ends.
OWNERS = f"""
import threading, time, uvicorn
from {PACKAGE}.app import create_app
from {PACKAGE}.server import shutdown

shutdown.EXIT_SECONDS = 1
app = create_app()

@app.get("/start-thread")
async def start_thread():
    threading.Thread(target=time.sleep, args=(600,)).start()

uvicorn.run(app, port=0, log_config=None)
"""


SETTINGS = {"LOG_FORMAT": "json", "MAX_CONCURENCY": "3"}


# Python imports this in each process that it starts, those of the workers included.
SITECUSTOMIZE = """
import atexit, gc, os, pathlib

@atexit.register
def note():
    ended = pathlib.Path(os.environ["ENDED"], str(os.getpid()))
    ended.write_text(f"{gc.get_freeze_count()} {gc.get_threshold()[0]}")
"""


@contextmanager
def ended_processes() -> Iterator[tuple[dict[str, str], Path]]:
    """The environment in which atexit handlers write a file each, named by the process id."""
    with TemporaryDirectory() as site, TemporaryDirectory() as ended:
        Path(site, "sitecustomize.py").write_text(SITECUSTOMIZE)
        path = os.pathsep.join([site, os.environ.get("PYTHONPATH", "")])
        yield {"PYTHONPATH": path, "ENDED": ended}, Path(ended)


def check_one_process() -> None:
    """In-flight requests finish, until a Ctrl-C; a second SIGTERM changes nothing."""
    with (
        ended_processes() as (owners, ended),
        started(
            at_check=Scripted(path="/v1/models", delay=60),
            SHUTDOWN_GRACE_SECONDS="600",
            **SETTINGS,
            **owners,
        ) as (service, url, offline),
    ):
        check_that_idle_connections_stay_open(url)
        check_requests(url, offline)
        endless = Scripted(reply="one two", hang_after=1)
        offline.script(Scripted(reply="one two", chunk_delay=0.5), endless)
        with (
            stream("POST", f"{url}/v1/chat/stream", json=QUESTION) as finishing,
            stream("POST", f"{url}/v1/chat/stream", json=QUESTION) as cut,
        ):
            service.popen.send_signal(signal.SIGTERM)
            check_that_new_requests_are_refused(url)
            finishing.read()
            assert events(finishing)[-1][0] == "done"
            service.popen.send_signal(signal.SIGTERM)
            assert get(f"{url}/readyz").json()["shutting_down"]
            service.popen.send_signal(signal.SIGINT)
            cut.read()
            assert_shutting_down(events(cut)[-1])
        status, printed = service.end()
        assert status == 0
        check_log(printed, 1)
        check_exit(ended, [service.popen.pid], [service.popen.pid])


def check_workers() -> None:
    with (
        ended_processes() as (owners, ended),
        TemporaryDirectory() as temporary,
        started(
            # Before listening and after.
            at_check=Scripted(path="/v1/models", status=404, code="model_not_found", times=2),
            WORKERS="2",
            TMPDIR=temporary,
            **SETTINGS,
            **owners,
        ) as (service, url, offline),
    ):
        # The second may start later than the first answers.
        wait_until(lambda: service.log.read_text().count("startup complete") == 2, seconds=60)
        check_requests(url, offline)
        # uvicorn ends a worker that is still starting by the signal, without atexit handlers.
        wait_until(lambda: service.log.read_text().count("startup complete") == 2, 60)
        offline.script(Scripted(reply="one two", chunk_delay=0.5))
        with stream("POST", f"{url}/v1/chat/stream", json=QUESTION) as finishing:
            service.popen.send_signal(signal.SIGINT)
            finishing.read()
            assert events(finishing)[-1][0] == "done"
        status, printed = service.end()
        assert status == 0
        check_log(printed, 2)
        # At the first of two checks, so by one process.
        assert printed.count("answered 404") == 1
        servers = [int(pid) for pid in re.findall(r"Finished server process \[(\d+)\]", printed)]
        assert len(servers) == 2
        check_exit(ended, servers, [service.popen.pid, *servers])
        assert not list(Path(temporary).iterdir()), "the directory of the metrics is still there"


def check_exit(ended: Path, servers: list[int], processes: list[int]) -> None:
    for pid in processes:
        assert (ended / str(pid)).exists(), "the atexit handlers have not run"
    for pid in servers:
        frozen, threshold = map(int, (ended / str(pid)).read_text().split())
        assert frozen > 10_000
        assert threshold == 20_000


def assert_shutting_down(last: tuple[str, Any]) -> None:
    name, problem = last
    assert (name, problem["type"]) == ("error", "urn:problem-type:shutting-down")


def check_that_new_requests_are_refused(url: str) -> None:
    with httpx2.Client(base_url=url, verify=NO_CERTIFICATES) as client:
        wait_until(lambda: client.get("/readyz").json()["shutting_down"])
        assert client.get("/readyz").status_code == 503
        refused = client.post("/v1/chat", json=QUESTION)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["connection"] == "close"
        assert refused.json()["type"] == "urn:problem-type:shutting-down"


def check_that_idle_connections_stay_open(url: str) -> None:
    """A load balancer sends requests on connections that were idle for a while."""
    with closing(HTTPConnection(url.removeprefix("http://"))) as connection:
        connection.connect()
        connection.auto_open = 0  # fails instead of connecting again
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
        time.sleep(6)  # uvicorn's own limit is 5 s
        connection.request("GET", "/livez")
        assert connection.getresponse().read()


def check_that_new_requests_are_served(url: str) -> None:
    """While load balancers find out; the client then connects to another process."""
    wait_until(lambda: get(f"{url}/readyz").status_code == 503)
    served = post(f"{url}/v1/chat", json=QUESTION)
    assert (served.status_code, served.headers["connection"]) == (200, "close")


def check_requests(url: str, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=401, code="invalid_api_key", message=f"Wrong: {KEY}"))
    failed = post(f"{url}/v1/chat", json=QUESTION, headers={"x-request-id": "one"})
    assert failed.json()["type"] == "urn:problem-type:upstream-credentials"
    assert post(f"{url}/v1/chat", json=QUESTION).is_success


def check_log(printed: str, workers: int) -> None:
    lines = [json.loads(line) for line in printed.splitlines()]
    assert {line["message"] for line in lines if line["request_id"] == "one"} == {
        "upstream-credentials: AuthenticationError: Error code: 401 - Wrong: [redacted]",
        "POST /v1/chat 502",
    }
    assert any("shutdown complete" in line["message"] for line in lines)
    messages = [line["message"] for line in lines]
    misspelled = "MAX_CONCURENCY is not a setting: is MAX_CONCURRENCY meant?"
    assert messages.count(misspelled) == workers
    assert not any("traceback" in line for line in lines)
    assert KEY not in printed
    assert " 499" not in printed, "no client has left"


def check_that_calls_are_cut() -> None:
    """Those that outlast the grace; a thread that never ends does not keep the process."""
    with (
        started("-c", OWNERS, SHUTDOWN_GRACE_SECONDS="3", SHUTDOWN_DRAIN_SECONDS="2") as (
            service,
            url,
            offline,
        ),
        ThreadPoolExecutor() as clients,
    ):
        assert answers(f"{url}/start-thread")
        offline.script(Scripted(delay=60, times=2))
        waiting = [clients.submit(post, f"{url}{path}", json=QUESTION) for path in ENDPOINTS]
        wait_until(lambda: len(offline.received) == 2)
        offline.script(Scripted(reply="one two", hang_after=1))
        with stream("POST", f"{url}/v1/chat/stream", json=QUESTION) as begun:
            service.popen.send_signal(signal.SIGTERM)
            check_that_new_requests_are_served(url)
            for answer in waiting:
                assert answer.result().json()["type"] == "urn:problem-type:shutting-down"
                assert answer.result().headers["retry-after"] == "1"
            begun.read()
            assert_shutting_down(events(begun)[-1])
        status, printed = service.end()
        assert status == 0
        assert "Traceback" not in printed
        assert "/v1/chat 503" in printed
        assert " 499" not in printed, "no client has left"


def test_responses_are_not_held_back_for_delayed_acks() -> None:
    with (
        main.listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

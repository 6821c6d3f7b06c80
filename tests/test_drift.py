"""`make drift` against a stand-in for the real API: another offline OpenAI behind a proxy."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from drift.__main__ import main, offline_openai, report
from drift.exchanges import Api, exchanges

from .projects import ROOT

pytestmark = pytest.mark.slow

KEY = "sk-the-right-key"
Json = dict[str, Any]
Change = Callable[[Json], object]  # changes an answer in place
Compare = Callable[[str], list[str]]


@dataclass
class StandIn:
    """Lets one key in and knows all models but one. `change` gets the JSON of each answer."""

    backend: str
    url: str = ""
    key: str = KEY
    change: Change = lambda _: None
    rewrite: Callable[[str], str] = str  # gets a body as text
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    without: str = ""  # a header that is not sent
    asked: list[tuple[str, str, Any]] = field(default_factory=list)  # method, path and body

    def refusal(self, path: str, key: str | None, body: Json | None) -> tuple[int, str, str] | None:
        """Status, code and message, where the real API knows more than the offline one."""
        if key not in (None, f"Bearer {self.key}"):
            return 401, "invalid_api_key", f"Incorrect API key provided: {key}."
        body = body or {}
        if "no-such-model" in (path.rpartition("/")[2], body.get("model")):
            return 404, "model_not_found", "The model does not exist."
        if body.get("max_completion_tokens", 1) < 1:
            return 400, "integer_below_min_value", "It is below the minimum."
        return None

    def answer(
        self, method: str, path: str, key: str | None, body: Json | None
    ) -> tuple[int, str, str]:
        """Status, content type and text."""
        if refusal := self.refusal(path, key, body):
            status, code, message = refusal
            kind = "invalid_request_error"
            error = {"message": message, "type": kind, "param": "model", "code": code}
            return status, "application/json", json.dumps({"error": error})
        connection = HTTPConnection(self.backend, timeout=10)
        headers = {"authorization": key} if key else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, reply.headers["content-type"], text

    def changed(self, text: str) -> str:
        """Each JSON in it changed, whether it is the body or data of an event."""
        lines = []
        for line in text.split("\n"):
            head, data = ("data: ", line[6:]) if line.startswith("data: ") else ("", line)
            if data.startswith("{"):
                parsed = json.loads(data)
                self.change(parsed)
                data = json.dumps(parsed)
            lines.append(head + data)
        return self.rewrite("\n".join(lines))


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"] or 0))
            body = json.loads(sent) if sent else None
            stand_in.asked.append((self.command, self.path, body))
            key = self.headers["authorization"]
            status, media_type, text = stand_in.answer(self.command, self.path, key, body)
            data = stand_in.changed(text).encode()
            # As the real API writes them.
            headers = {"Content-Type": f"{media_type}; charset=utf-8", "X-Request-ID": "req_1"}
            headers |= {"Content-Length": str(len(data))} | stand_in.headers
            headers.pop(stand_in.without, None)
            self.send_response(stand_in.status or status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - named by http.server

        def log_message(self, *arguments: object) -> None:
            """Not on stderr, where the tests look."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds
    thread.start()
    try:
        stand_in.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def offline() -> Iterator[Api]:
    with offline_openai() as api:
        yield api


@pytest.fixture
def compare(real: "StandIn", offline: Api, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Compare the answers to one request; what is printed about them."""

    def compare(name: str) -> list[str]:
        (chosen,) = (exchange for exchange in exchanges("m") if exchange.name == name)
        drifted = report(Api(real.url, KEY, {}), offline, [chosen])
        printed = capsys.readouterr().out
        assert drifted == ("DRIFT" in printed)
        return printed.removeprefix(f"{name}:").strip().split("\n  ")

    return compare


@pytest.fixture
def real(offline: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """It has the offline OpenAI behind it, which is the other side of the comparison, too."""
    with standing_in(StandIn(urlsplit(offline.url).netloc)) as stand_in:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", stand_in.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("OPENAI_MODEL", raising=False)
        yield stand_in


def test_without_a_difference_all_is_the_same(
    real: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    *lines, empty, last = capsys.readouterr().out.splitlines()
    assert {line.rpartition(": ")[2] for line in lines} == {"same"}
    assert (empty, last) == ("", f"{len(lines)} requests: none with drift.")
    assert len(lines) == len(real.asked) >= 20


def test_the_model_is_the_one_that_the_template_suggests(
    real: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def models() -> set[str]:
        asked, real.asked = real.asked, []
        return {body["model"] for _, path, body in asked if path.endswith("/responses")}

    main([])
    assert models() == {json.loads((ROOT / "cookiecutter.json").read_text())["openai_model"]}
    monkeypatch.setenv("OPENAI_MODEL", "gpt-mine")
    main([])
    assert models() == {"gpt-mine"}


def test_requests_ask_for_few_tokens(real: StandIn) -> None:
    """Those that are answered, by a model."""
    main([])
    for _, path, body in real.asked:
        limits = {
            "/v1/chat/completions": "max_completion_tokens",
            "/v1/responses": "max_output_tokens",
        }
        if path in limits and len(body) > 1:
            assert body[limits[path]] <= 100


def usage_dropped(data: Json) -> None:
    data.pop("usage", None)


def total_as_text(data: Json) -> None:
    if data.get("usage"):
        data["usage"]["total_tokens"] = str(data["usage"]["total_tokens"])


def annotations_added(data: Json) -> None:
    for choice in data.get("choices", ()):
        choice["message"]["annotations"] = []


def code_changed(data: Json) -> None:
    if data["error"]["code"]:
        data["error"]["code"] = "new_code"


def reason_changed(data: Json) -> None:
    data["choices"][0]["finish_reason"] = "tired"


def nothing_in_the_list(data: Json) -> None:
    data["data"] = []


def obfuscated(data: Json) -> None:
    data["obfuscation"] = "xyz"


def content_in_parts(data: Json) -> None:
    data["choices"][0]["message"]["content"] = [{"type": "text"}]


def role_renamed(data: Json) -> None:
    data["choices"][0]["message"]["role"] = "model"


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("a chat", usage_dropped, "DRIFT  response: the real API lacks `usage`"),
        (
            "a response",
            total_as_text,
            "DRIFT  response.usage.total_tokens: string in the real API, number offline",
        ),
        (
            "a chat",
            annotations_added,
            "info   response.choices[].message: the real API also has `annotations` (list)",
        ),
        (
            "a chat with no message",
            code_changed,
            "DRIFT  response.error.code: `new_code` in the real API, `empty_array` offline",
        ),
        (
            "an unknown model",
            code_changed,
            "DRIFT  response.error.code: `new_code` in the real API, `model_not_found` offline",
        ),
        (
            "a chat",
            reason_changed,
            "DRIFT  response.choices[].finish_reason: `tired` in the real API is new",
        ),
        (
            "a streamed chat",
            obfuscated,
            "info   event chat.completion.chunk: the real API also has `obfuscation` (string)",
        ),
        (
            "a chat",
            content_in_parts,
            "DRIFT  response.choices[].message.content: list in the real API, string offline",
        ),
        (
            "a chat",
            role_renamed,
            "DRIFT  response.choices[].message.role: `model` in the real API, `assistant` offline",
        ),
        ("the list of models", nothing_in_the_list, "same"),
    ],
)
def test_a_difference_is_named(
    real: StandIn, compare: Compare, name: str, change: Change, expected: str
) -> None:
    real.change = change

    assert compare(name) == [expected]


def blocks(text: str) -> list[str]:
    return text.split("\n\n")


def part_not_done(text: str) -> str:
    return "\n\n".join(
        one for one in blocks(text) if "event: response.content_part.done" not in one
    )


def last_first(text: str) -> str:
    *others, last, empty = blocks(text)
    return "\n\n".join([last, *others, empty])


def not_done(text: str) -> str:
    return text.replace("data: [DONE]\n\n", "")


def with_ping(text: str) -> str:
    return f"event: ping\ndata: {{}}\n\n{text}"


@pytest.mark.parametrize(
    ("name", "rewrite", "expected"),
    [
        (
            "a streamed response",
            part_not_done,
            "DRIFT  the real API lacks the events response.content_part.done",
        ),
        (
            "a streamed response with a tool",
            last_first,
            "DRIFT  the real API has another order: response.completed, response.created, ...",
        ),
        ("a streamed chat", not_done, "DRIFT  the real API lacks the events [DONE]"),
        ("a streamed chat", with_ping, "info   the real API also has the events ping"),
    ],
)
def test_a_difference_of_a_stream_is_named(
    real: StandIn, compare: Compare, name: str, rewrite: Callable[[str], str], expected: str
) -> None:
    real.rewrite = rewrite
    (found,) = compare(name)

    assert found.startswith(expected.removesuffix("..."))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": 404}, "status: 404 in the real API, 200 offline"),
        (
            {"headers": {"Content-Type": "text/html"}},
            "content type: text/html in the real API, application/json offline",
        ),
        ({"without": "X-Request-ID"}, "the real API lacks the header x-request-id"),
        # The key is not sent to where a redirect leads.
        (
            {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}},
            "status: 302 in the real API, 200 offline",
        ),
    ],
)
def test_a_difference_of_the_head_is_named(
    real: StandIn, compare: Compare, changes: dict[str, Any], expected: str
) -> None:
    vars(real).update(changes)

    assert compare("the list of models") == [f"DRIFT  {expected}"]


def test_drift_has_a_status_of_its_own(real: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    real.change = obfuscated  # is for information
    assert main([]) == 0
    real.change = usage_dropped
    assert main([]) == 1
    assert capsys.readouterr().out.endswith(" requests: 8 with drift.\n")


@pytest.mark.parametrize("key", [None, "", " "])
def test_without_a_key_it_says_so_and_passes(
    real: StandIn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY") if key is None else monkeypatch.setenv(
        "OPENAI_API_KEY", key
    )

    assert main([]) == 0
    assert capsys.readouterr().out == "Nothing is compared without OPENAI_API_KEY.\n"
    assert not real.asked


REFUSED = "The real API refused the request for the list of models with status"
MALFORMED = "OPENAI_BASE_URL or OPENAI_API_KEY is malformed."


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"OPENAI_API_KEY": "sk-of-another"}, f"{REFUSED} 401."),
        (
            {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
            "The real API cannot be reached: Connection refused.",
        ),
        ({"OPENAI_BASE_URL": "api.openai.com/v1"}, MALFORMED),
        ({"OPENAI_API_KEY": "sk-line\nend"}, MALFORMED),
        ({"OPENAI_API_KEY": "sk-“quoted”"}, MALFORMED),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    real: StandIn,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    sentence: str,
) -> None:
    """The key is not in it, although a real API echoes it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert main([]) == 2
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", f"Not compared. {sentence}\n")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"status": 429}, f"{REFUSED} 429."),
        ({"status": 503}, f"{REFUSED} 503."),
        ({"headers": {"Content-Length": "9999"}}, "The connection failed: IncompleteRead."),
    ],
)
def test_an_api_that_answers_nothing_is_one_sentence(
    real: StandIn, capfd: pytest.CaptureFixture[str], changes: dict[str, Any], sentence: str
) -> None:
    vars(real).update(changes)

    assert main([]) == 2
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", f"Not compared. {sentence}\n")


def test_the_key_is_never_printed(real: StandIn, capfd: pytest.CaptureFixture[str]) -> None:
    """Wherever the real API echoes it in an answer that differs."""

    def echo(data: Json) -> None:
        for member in [data, *(value for value in data.values() if isinstance(value, dict))]:
            member["message"] = member["id"] = f"Your key is {KEY}."

    real.change = echo
    assert main([]) in (0, 1)
    assert KEY not in "".join(capfd.readouterr())


def test_the_help_says_what_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    for word in ("DRIFT", "OPENAI_BASE_URL", "Exit status", "tokens"):
        assert word in printed

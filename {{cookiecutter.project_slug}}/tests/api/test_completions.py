"""What counts as an answer: text that was paid for is never thrown away for its metadata.

A reply that is not accepted would be requested, and paid for, again.
"""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ..conftest import QUESTION, Service, completions, errors, events, streamed_reply
from dev.offline_openai import OfflineOpenAI, Scripted

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
OUR_USAGE = {
    "input_tokens": 1,
    "output_tokens": 2,
    "total_tokens": 3,
    "cached_tokens": None,
    "reasoning_tokens": None,
}

# Members of a reply, and of any chunk of a stream, that say nothing of its text.
ODD_METADATA: list[dict[str, Any]] = [
    {"usage": {}},
    {"usage": {"total_tokens": 3}},
    {"usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}},
    {"usage": "much"},
    {"usage": 3},
    {"usage": []},
    {"usage": USAGE | {"total_tokens": 3.5}},
    {"usage": USAGE | {"total_tokens": "three"}},
    {"model": None},
    {"model": 3},
    {"model": ""},
    {"model": {"name": "gpt-test"}},
    {"id": None, "created": "now", "object": None, "system_fingerprint": 7},
    {"error": None},
    {"error": {}},
    {"error": ""},
    {"error": False},
    {"error": {"code": None, "message": None}},
    {"prompt_filter_results": [{"prompt_index": 0}], "x_groq": {"id": "req_1"}},
]

# What a choice may have besides its text.
ODD_CHOICES: list[dict[str, Any]] = [
    {"finish_reason": None},
    {"finish_reason": ""},
    {"finish_reason": 3},
    {"finish_reason": ["stop"]},
    {"index": "first", "logprobs": "none", "content_filter_results": {}},
]

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Greet, I think."}]}
CONTENTS: list[Any] = [
    "Hello.",
    [{"type": "text", "text": "Hello."}],
    [THINKING, {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}],
    [{"type": "output_text", "text": "Hello.", "annotations": []}],
    [{"type": "reasoning", "text": "Greet, I think."}, {"type": "text", "text": "Hello."}],
    [{"type": "thinking", "text": ["Greet."]}, {"type": "text", "text": "Hello."}],
]


def reply(content: Any = "Hello.", choice: Any = None, **members: Any) -> dict[str, Any]:
    """A reply with only what is needed, and these members."""
    message = {"role": "assistant", "content": content}
    return {"choices": [{"message": message} | (choice or {})]} | members


def chunk(content: Any = "Hello.", choice: Any = None, **members: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}} | (choice or {})]} | members


def response(body: bytes) -> httpx2.Response:
    request = httpx2.Request("POST", "http://openai.test", json={"model": "gpt-test"})
    return httpx2.Response(200, content=body, request=request)


def answer(body: Any) -> dict[str, Any]:
    """What a body, as JSON or as it stands, is read as."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return completions.to_reply(response(data)).model_dump()


def body_of(*chunks: Any, end: str = "data: [DONE]\n\n") -> str:
    """Chunks as JSON, or as they stand."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in chunks]
    return "".join(f"data: {text}\n\n" for text in texts) + end


def streamed_answer(*chunks: Any, end: str = "data: [DONE]\n\n") -> tuple[str, dict[str, Any]]:
    """The text that a stream is read as, and its end."""
    return read_stream(body_of(*chunks, end=end).encode())


def read_stream(body: bytes) -> tuple[str, dict[str, Any]]:
    read = streamed_reply.StreamedReply(response(b""))
    text = "".join(delta.text for delta in read.feed(body))
    return text, read.to_done().model_dump()


def stream(*chunks: Any, end: str = "data: [DONE]\n\n") -> Scripted:
    return Scripted(body=body_of(*chunks, end=end), content_type="text/event-stream")


def streamed(service: Service) -> tuple[str, str, Any]:
    """The text of a stream, and its last event."""
    response = service.stream()
    assert response.status_code == 200, response.text
    *deltas, (name, data) = events(response)
    return "".join(delta["text"] for _, delta in deltas), name, data


@pytest.mark.parametrize("odd", ODD_METADATA)
def test_a_reply_is_kept_whatever_its_metadata(odd: dict[str, Any]) -> None:
    expected = {"reply": "Hello.", "model": "gpt-test", "finish_reason": None, "usage": None}
    assert answer(reply(**odd)) == expected


@pytest.mark.parametrize("odd", ODD_CHOICES)
def test_a_reply_is_kept_whatever_its_choice_says(odd: dict[str, Any]) -> None:
    assert answer(reply(choice=odd, model="gpt-real", usage=USAGE)) == {
        "reply": "Hello.",
        "model": "gpt-real",
        "finish_reason": None,
        "usage": OUR_USAGE,
    }


@pytest.mark.parametrize("odd", [*ODD_METADATA, {"choices": None}, {"choices": []}])
def test_a_stream_is_kept_whatever_the_metadata_of_its_chunks(odd: dict[str, Any]) -> None:
    for position in range(4):
        chunks = [chunk("Hel"), chunk("lo.", {"finish_reason": "stop"}), {"usage": USAGE}]
        chunks.insert(position, odd)
        done = {"model": "gpt-test", "finish_reason": "stop", "usage": OUR_USAGE}
        assert streamed_answer(*chunks) == ("Hello.", done)


@pytest.mark.parametrize("odd", [*ODD_METADATA, *({"choice": odd} for odd in ODD_CHOICES)])
def test_text_is_kept_whatever_else_is_in_its_chunk(odd: dict[str, Any]) -> None:
    done = {"model": "gpt-test", "finish_reason": None, "usage": None}
    assert streamed_answer(chunk(**odd)) == ("Hello.", done)


def test_a_reply_with_odd_metadata_is_requested_once(
    service: Service, offline: OfflineOpenAI
) -> None:
    odd = {"usage": {}, "model": 3, "error": {"code": None}}
    offline.script(Scripted(body=json.dumps(reply(**odd))), stream(chunk(**odd)))
    assert service.chat().json()["reply"] == "Hello."
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 2


@pytest.mark.parametrize("content", CONTENTS)
def test_content_may_be_a_list_of_parts(content: Any) -> None:
    assert answer(reply(content))["reply"] == "Hello."
    assert streamed_answer(chunk(content))[0] == "Hello."


@pytest.mark.parametrize("refusal", [None, False, {}, 3])
def test_a_refusal_of_any_type_does_not_spoil_the_content(refusal: Any) -> None:
    message = {"content": "Hello.", "refusal": refusal}
    assert answer({"choices": [{"message": message}]})["reply"] == "Hello."
    assert streamed_answer({"choices": [{"delta": message}]})[0] == "Hello."


@pytest.mark.parametrize("content", [None, "", [], [THINKING]])
def test_a_reply_may_be_empty(content: Any) -> None:
    """That of a model that called a tool, or whose reasoning used up its tokens."""
    why = {"finish_reason": "length"}
    plain = answer(reply(content, why))
    assert (plain["reply"], plain["finish_reason"]) == ("", "length")
    text, done = streamed_answer(chunk(content, why))
    assert (text, done["finish_reason"]) == ("", "length")


@pytest.mark.parametrize(
    "nothing",
    [
        "null",
        " null ",
        "{}",
        "[]",
        '""',
        '{"type": "ping"}',
        '{"choices": {}}',
        '{"choices": [{}]}',
        '{"choices": [{"delta": null}]}',
    ],
)
def test_a_chunk_without_text_is_skipped(nothing: str) -> None:
    for position in range(3):
        chunks: list[Any] = [chunk("Hel"), chunk("lo.", {"finish_reason": "stop"})]
        chunks.insert(position, nothing)
        text, done = streamed_answer(*chunks)
        assert (text, done["finish_reason"]) == ("Hello.", "stop")


@pytest.mark.parametrize(
    "end",
    [
        "data: [DONE]\n\n",
        "data: [DONE] \n\n",
        "data:  [DONE]\n\n",
        "data:[DONE]\n\n",
        "data: [DONE]\t\r\n\r\n",
    ],
)
def test_a_stream_is_whole_with_done(end: str) -> None:
    """Also without a finish_reason."""
    text, done = streamed_answer(chunk(), end=end)
    assert (text, done["finish_reason"]) == ("Hello.", None)


@pytest.mark.parametrize("how", [{}, {"headers": {"content-length": "9999"}}])
def test_a_stream_is_whole_with_a_finish_reason(
    how: dict[str, Any], serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Also if the connection is then cut, or goes silent, before there is any usage."""
    service = serve(max_attempts=1, attempt_timeout_seconds=0.5)
    body = f"data: {json.dumps(chunk(choice={'finish_reason': 'stop'}))}\n\n"
    offline.script(Scripted(body=body, content_type="text/event-stream", **how))
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 1


def test_a_stream_with_neither_was_cut(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(stream(chunk(), {"usage": USAGE}, end=""))
    text, name, problem = streamed(service)
    assert (text, name) == ("Hello.", "error")
    assert problem["type"] == "urn:problem-type:upstream-error"
    assert len(offline.received) == 1


def test_text_after_the_finish_reason_is_kept() -> None:
    """Some servers repeat the reason in each chunk."""
    why = {"finish_reason": "stop"}
    last = {"finish_reason": "length"}
    text, done = streamed_answer(chunk("Hel", why), chunk("lo.", last), chunk(""))
    assert (text, done["finish_reason"]) == ("Hello.", "length")


def test_the_last_usage_that_can_be_read_counts() -> None:
    first = dict.fromkeys(USAGE, 0)
    _, done = streamed_answer(chunk(usage=first), {"usage": USAGE}, {"usage": None}, {"usage": {}})
    assert done["usage"] == OUR_USAGE


@pytest.mark.parametrize(
    ("details", "read"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 1}}, {"cached_tokens": 1}),
        ({"prompt_tokens_details": {"cached_tokens": 0}}, {"cached_tokens": 0}),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, {"reasoning_tokens": 2}),
        ({"prompt_tokens_details": None, "completion_tokens_details": {}}, {}),
    ],
)
def test_usage_has_the_details_that_can_be_read(
    details: dict[str, Any], read: dict[str, int]
) -> None:
    usage = USAGE | details
    assert answer(reply(usage=usage))["usage"] == OUR_USAGE | read
    assert streamed_answer(chunk(usage=usage))[1]["usage"] == OUR_USAGE | read


def test_a_chunk_whose_text_cannot_be_read_ends_no_reply() -> None:
    """Not even if it has a finish_reason: text may be missing."""
    unreadable = chunk({"secret": "plan"}, {"finish_reason": "stop"})
    with pytest.raises(errors.BrokenReply):
        streamed_answer(chunk(), unreadable)


def test_what_follows_done_is_ignored() -> None:
    assert streamed_answer(chunk(), end="data: [DONE]\n\ndata: {\n\n")[0] == "Hello."


def test_a_server_that_does_not_stream_is_understood(
    service: Service, offline: OfflineOpenAI
) -> None:
    body = json.dumps(reply(model="gpt-real", usage=USAGE), indent=2)
    offline.script(Scripted(body=body))
    text, name, done = streamed(service)
    assert (text, name, done["model"]) == ("Hello.", "done", "gpt-real")
    assert done["usage"]["total_tokens"] == 3
    assert len(offline.received) == 1


@pytest.mark.parametrize(
    ("written", "text"), [(rb"\ud83d", "?"), (b"\xff", "\ufffd"), (b"\x01\t", "\x01\t")]
)
def test_odd_characters_do_not_spoil_the_rest(written: bytes, text: str) -> None:
    """Half a surrogate pair, a byte that is not UTF-8, control characters that are not escaped."""
    plain, event = (json.dumps(one("one X two")).encode() for one in (reply, chunk))
    assert answer(plain.replace(b"X", written))["reply"] == f"one {text} two"
    body = b"data: %b\n\ndata: [DONE]\n\n" % event.replace(b"X", written)
    assert read_stream(body)[0] == f"one {text} two"


# Azure's first chunk.
FILTERED = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("before", [[], [FILTERED]])
@pytest.mark.parametrize("failure", ["{", '{"error": {"code": 503}}', None])
def test_a_stream_that_fails_before_it_has_begun_is_retried(
    before: list[Any], failure: str | None, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(stream(*before, *([failure] if failure else []), end=""))
    assert streamed(service)[1] == "done"
    assert len(offline.received) == 2


@pytest.mark.parametrize("cut", ['data: {"choices":[],"usa', "data: [DO"])
def test_a_cut_event_after_the_finish_reason_spoils_nothing(cut: str) -> None:
    last = chunk("Hello.", {"finish_reason": "stop"})
    text, done = streamed_answer(last, end=cut)
    assert (text, done["finish_reason"]) == ("Hello.", "stop")


def test_an_event_may_hold_a_whole_message() -> None:
    text, done = streamed_answer(reply("Hello.", {"finish_reason": "stop"}))
    assert (text, done["finish_reason"]) == ("Hello.", "stop")


@pytest.mark.parametrize(
    "choices",
    [
        [{"message": {"content": "Hello."}}, None],
        [{"message": {"content": "Hello."}}, "second"],
        [{"message": {"content": "Hello."}, "delta": None}],
    ],
)
def test_only_the_first_message_counts(choices: list[Any]) -> None:
    assert answer({"choices": choices})["reply"] == "Hello."


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("before", [[], [FILTERED], [ROLE], [FILTERED, ROLE]])
def test_a_stream_without_text_is_whole_with_done_if_it_has_a_choice(
    before: list[Any], service: Service, offline: OfflineOpenAI
) -> None:
    """An empty reply is a reply, and paid for."""
    offline.script(stream(*before))
    text, name, _ = streamed(service)
    assert name == "done"
    is_reply = any(chunk["choices"] for chunk in before)
    assert (text == "", len(offline.received)) == ((True, 1) if is_reply else (False, 2))


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("begun", [[chunk("Hel")], [ROLE], [chunk("", {"finish_reason": "stop"})]])
def test_a_stream_is_not_retried_once_the_model_is_at_work(
    begun: list[Any], service: Service, offline: OfflineOpenAI
) -> None:
    """A reasoning model may send empty chunks for long before its text."""
    offline.script(stream(*begun, '{"error": {"code": 503}}'))
    assert streamed(service)[1] == "error"
    assert len(offline.received) == 1


def test_a_model_may_reason_for_longer_than_the_deadline(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Once its stream has begun: here an empty chunk, then blank lines, byte by byte."""
    service = serve(attempt_timeout_seconds=None, deadline_seconds=1)
    body = (
        'data:{"choices":[{}]}\n\n' + "\n" * 500 + f"data:{json.dumps(chunk())}\n\ndata:[DONE]\n\n"
    )
    offline.script(Scripted(body=body, content_type="text/event-stream", chunk_delay=0.002))
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 1


@pytest.mark.parametrize(
    "body",
    [
        reply({"secret": "plan"}),
        reply([{"type": "text", "text": {"secret": "plan"}}]),
        {"choices": [{"message": "secret plan"}]},
        {"choices": ["secret plan"]},
        {"choices": "secret plan"},
        {"choices": None, "id": "secret plan"},
        {"choices": []},
        {},
        chunk("secret plan"),
    ],
)
def test_a_reply_without_readable_text_is_broken_and_not_quoted(body: Any) -> None:
    with pytest.raises(errors.BrokenReply) as caught:
        answer(body)
    assert "plan" not in errors.describe(caught.value)


@pytest.mark.parametrize(
    ("changed", "asked", "options"),
    [
        ({}, {"max_completion_tokens": 7}, {"stream_options": {"include_usage": True}}),
        ({"max_tokens_parameter": "MAX_TOKENS", "stream_usage": False}, {"max_tokens": 7}, {}),
    ],
)
def test_the_operator_chooses_what_the_server_understands(
    changed: dict[str, Any],
    asked: dict[str, Any],
    options: dict[str, Any],
    serve: Callable[..., Service],
    offline: OfflineOpenAI,
) -> None:
    service = serve(**changed)
    assert service.chat(max_output_tokens=7).is_success
    assert "event: done" in service.stream(max_output_tokens=7).text
    plain, streaming = (request.body for request in offline.received)
    assert plain == QUESTION | {"model": "gpt-test"} | asked
    assert streaming == plain | {"stream": True} | options

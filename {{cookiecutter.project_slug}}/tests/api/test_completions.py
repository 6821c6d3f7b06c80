"""What counts as an answer: text that was paid for is never thrown away for its metadata.

Each reply is asked for once: one that is not accepted would be tried again, and paid for again.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from ..conftest import QUESTION, Service, events
from dev.offline_openai import OfflineOpenAI, Scripted

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
READ_USAGE = {
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
    {"usage": USAGE | {"total_tokens": -1}},
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
    {"error": {"code": 0, "message": "success"}},
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
    ["Hel", "lo."],
    [{"type": "text", "text": "Hello."}, None],
    [{"type": "thinking", "text": ["Greet."]}, {"type": "text", "text": "Hello."}],
    {"type": "text", "text": "Hello."},
    [{"text": "Hello."}, {"type": "text", "text": None}, {"type": 3}],
]


def reply(content: Any = "Hello.", choice: Any = None, **members: Any) -> dict[str, Any]:
    """A reply with only what is needed, and these members."""
    message = {"role": "assistant", "content": content}
    return {"choices": [{"message": message} | (choice or {})]} | members


def chunk(content: Any = "Hello.", choice: Any = None, **members: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}} | (choice or {})]} | members


def stream(*chunks: Any, end: str = "data: [DONE]\n\n") -> Scripted:
    """Chunks as JSON, or as they stand."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in chunks]
    body = "".join(f"data: {text}\n\n" for text in texts) + end
    return Scripted(body=body, content_type="text/event-stream")


def streamed(service: Service) -> tuple[str, str, Any]:
    """The text of a stream, and its last event."""
    response = service.stream()
    assert response.status_code == 200, response.text
    *deltas, (name, data) = events(response)
    return "".join(delta["text"] for _, delta in deltas), name, data


@pytest.mark.parametrize("odd", ODD_METADATA)
def test_a_reply_is_kept_whatever_its_metadata(
    odd: dict[str, Any], service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(body=json.dumps(reply(**odd))))
    answer = {"reply": "Hello.", "model": "gpt-test", "finish_reason": None, "usage": None}
    assert service.chat().json() == answer
    assert len(offline.received) == 1


@pytest.mark.parametrize("odd", ODD_CHOICES)
def test_a_reply_is_kept_whatever_its_choice_says(
    odd: dict[str, Any], service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(body=json.dumps(reply(choice=odd, model="gpt-real", usage=USAGE))))
    assert service.chat().json() == {
        "reply": "Hello.",
        "model": "gpt-real",
        "finish_reason": None,
        "usage": READ_USAGE,
    }
    assert len(offline.received) == 1


@pytest.mark.parametrize("odd", [*ODD_METADATA, {"choices": None}, {"choices": []}])
@pytest.mark.parametrize("position", ["first", "between", "last"])
def test_a_stream_is_kept_whatever_the_metadata_of_its_chunks(
    odd: dict[str, Any], position: str, service: Service, offline: OfflineOpenAI
) -> None:
    chunks = [chunk("Hel"), chunk("lo.", {"finish_reason": "stop"}), {"usage": USAGE}]
    chunks.insert(["first", "between", "last"].index(position), odd)
    offline.script(stream(*chunks))
    done = {"model": "gpt-test", "finish_reason": "stop", "usage": READ_USAGE}
    assert streamed(service) == ("Hello.", "done", done)
    assert len(offline.received) == 1


@pytest.mark.parametrize("odd", [*ODD_METADATA, *({"choice": odd} for odd in ODD_CHOICES)])
def test_text_is_kept_whatever_else_is_in_its_chunk(
    odd: dict[str, Any], service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(stream(chunk(**odd)))
    done = {"model": "gpt-test", "finish_reason": None, "usage": None}
    assert streamed(service) == ("Hello.", "done", done)
    assert len(offline.received) == 1


@pytest.mark.parametrize("content", CONTENTS)
def test_content_may_be_a_list_of_parts(
    content: Any, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(body=json.dumps(reply(content))), stream(chunk(content)))
    assert service.chat().json()["reply"] == "Hello."
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 2


@pytest.mark.parametrize("refusal", [None, False, {}, 3])
def test_a_refusal_of_any_type_does_not_spoil_the_content(
    refusal: Any, service: Service, offline: OfflineOpenAI
) -> None:
    message = {"content": "Hello.", "refusal": refusal}
    offline.script(
        Scripted(body=json.dumps({"choices": [{"message": message}]})),
        stream({"choices": [{"delta": message}]}),
    )
    assert service.chat().json()["reply"] == "Hello."
    assert streamed(service)[:2] == ("Hello.", "done")


@pytest.mark.parametrize("content", [None, "", [], [THINKING]])
def test_a_model_may_have_nothing_to_say(
    content: Any, service: Service, offline: OfflineOpenAI
) -> None:
    """One that called a tool, or that thought until its tokens were used up."""
    why = {"finish_reason": "length"}
    offline.script(Scripted(body=json.dumps(reply(content, why))), stream(chunk(content, why)))
    answer = service.chat().json()
    assert (answer["reply"], answer["finish_reason"]) == ("", "length")
    text, name, done = streamed(service)
    assert (text, name, done["finish_reason"]) == ("", "done", "length")
    assert len(offline.received) == 2


@pytest.mark.parametrize(
    "nothing",
    [
        "null",
        " null ",
        " ",
        "{}",
        '{"type": "ping"}',
        '{"choices": [{}]}',
        '{"choices": [{"delta": null}]}',
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_chunk_that_holds_nothing_is_skipped(
    nothing: str, position: int, service: Service, offline: OfflineOpenAI
) -> None:
    chunks: list[Any] = [chunk("Hel"), chunk("lo.", {"finish_reason": "stop"})]
    chunks.insert(position, nothing)
    offline.script(stream(*chunks))
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 1


@pytest.mark.parametrize(
    "end",
    [
        "data: [DONE]\n\n",
        "data: [DONE] \n\n",
        "data:  [DONE]\n\n",
        "data:[DONE]",
        "data: [DONE]\t\r\n\r\n",
    ],
)
def test_a_stream_is_whole_with_done(end: str, service: Service, offline: OfflineOpenAI) -> None:
    """Also without a finish_reason."""
    offline.script(stream(chunk(), end=end))
    text, name, done = streamed(service)
    assert (text, name, done["finish_reason"]) == ("Hello.", "done", None)
    assert len(offline.received) == 1


@pytest.mark.parametrize("how", [{}, {"headers": {"content-length": "9999"}}])
def test_a_stream_is_whole_with_a_finish_reason(
    how: dict[str, Any], serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Also if the connection is then cut, or goes silent, before there is any usage."""
    service = serve(attempt_timeout_seconds=0.5)
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


def test_text_after_the_finish_reason_is_kept(service: Service, offline: OfflineOpenAI) -> None:
    """Some servers say the reason with each chunk."""
    why = {"finish_reason": "stop"}
    offline.script(stream(chunk("Hel", why), chunk("lo.", {"finish_reason": "length"}), chunk("")))
    text, name, done = streamed(service)
    assert (text, name, done["finish_reason"]) == ("Hello.", "done", "length")


def test_the_last_usage_that_can_be_read_counts(service: Service, offline: OfflineOpenAI) -> None:
    first = dict.fromkeys(USAGE, 0)
    offline.script(stream(chunk(usage=first), {"usage": USAGE}, {"usage": None}, {"usage": {}}))
    _, _, done = streamed(service)
    assert done["usage"] == READ_USAGE


@pytest.mark.parametrize(
    ("details", "read"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 1}}, {"cached_tokens": 1}),
        ({"prompt_tokens_details": {"cached_tokens": 0}}, {"cached_tokens": 0}),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, {"reasoning_tokens": 2}),
        ({"prompt_tokens_details": None, "completion_tokens_details": []}, {}),
        ({"prompt_tokens_details": {"cached_tokens": True}}, {}),
        ({"prompt_tokens_details": {"cached_tokens": -1, "audio_tokens": 1}}, {}),
        ({"completion_tokens_details": {"reasoning_tokens": "2"}}, {}),
    ],
)
def test_usage_has_the_details_that_can_be_read(
    details: dict[str, Any], read: dict[str, int], service: Service, offline: OfflineOpenAI
) -> None:
    usage = USAGE | details
    offline.script(Scripted(body=json.dumps(reply(usage=usage))), stream(chunk(usage=usage)))
    assert service.chat().json()["usage"] == READ_USAGE | read
    assert streamed(service)[2]["usage"] == READ_USAGE | read


def test_a_chunk_whose_text_cannot_be_read_ends_no_reply(
    service: Service, offline: OfflineOpenAI
) -> None:
    """Not even if it has a finish_reason: text may be missing."""
    offline.script(stream(chunk(), chunk({"secret": "plan"}, {"finish_reason": "stop"})))
    assert streamed(service)[:2] == ("Hello.", "error")


def test_what_follows_done_is_ignored(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(stream(chunk(), end="data: [DONE]\n\ndata: {\n\n"))
    assert streamed(service)[:2] == ("Hello.", "done")


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_a_server_that_does_not_stream_is_understood(
    content_type: str, service: Service, offline: OfflineOpenAI
) -> None:
    body = json.dumps(reply(model="gpt-real", usage=USAGE), indent=2)
    offline.script(Scripted(body=body, content_type=content_type))
    text, name, done = streamed(service)
    assert (text, name, done["model"]) == ("Hello.", "done", "gpt-real")
    assert done["usage"]["total_tokens"] == 3
    assert len(offline.received) == 1


@pytest.mark.parametrize(
    ("written", "text"), [(rb"\ud83d", "?"), (b"\xff", "\ufffd"), (b"\x01\t", "\x01\t")]
)
def test_odd_characters_do_not_spoil_the_rest(
    written: bytes, text: str, service: Service, offline: OfflineOpenAI
) -> None:
    """Half a surrogate pair, a byte that is not UTF-8, control characters that are not escaped."""
    plain, event = (json.dumps(one("one X two")).encode() for one in (reply, chunk))
    offline.script(
        Scripted(body=plain.replace(b"X", written)),
        Scripted(body=b"data: %b\n\ndata: [DONE]\n\n" % event.replace(b"X", written)),
    )
    assert service.chat().json()["reply"] == f"one {text} two"
    assert streamed(service)[:2] == (f"one {text} two", "done")
    assert len(offline.received) == 2


BEFORE_TEXT: list[list[Any]] = [
    [],
    [{"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}],  # Azure's first chunk
    [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}],
    [{"choices": []}, {"choices": [{"delta": {"role": "assistant"}}]}],
]


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("before", BEFORE_TEXT)
@pytest.mark.parametrize("failure", ["{", '{"error": {"code": 503}}', None])
def test_a_stream_that_fails_before_it_has_begun_is_tried_again(
    before: list[Any], failure: str | None, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(stream(*before, *([failure] if failure else []), end=""))
    assert streamed(service)[1] == "done"
    assert len(offline.received) == 2


@pytest.mark.parametrize(
    "odd",
    ["null", "[]", '""', "true", '{"choices": "none"}', '{"choices": [null]}', '{"choices": {}}'],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_event_that_can_hold_no_text_is_skipped(
    odd: str, position: int, service: Service, offline: OfflineOpenAI
) -> None:
    chunks: list[Any] = [chunk("Hel"), chunk("lo.", {"finish_reason": "stop"})]
    chunks.insert(position, odd)
    offline.script(stream(*chunks))
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 1


@pytest.mark.parametrize("junk", ["keepalive", "{", '{"choices":[],"usa', "[DO"])
def test_junk_after_the_finish_reason_spoils_nothing(
    junk: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(stream(chunk("Hello.", {"finish_reason": "stop"}), end=f"data: {junk}"))
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 1


def test_an_event_may_hold_a_whole_message(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(stream(reply("Hello.", {"finish_reason": "stop"})))
    assert streamed(service)[:2] == ("Hello.", "done")


@pytest.mark.parametrize(
    "choices",
    [
        [{"message": {"content": "Hello."}}, None],
        [{"message": {"content": "Hello."}}, "second"],
        [{"message": {"content": "Hello."}, "delta": "x"}],
    ],
)
def test_only_the_first_message_counts(
    choices: list[Any], service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(body=json.dumps({"choices": choices})))
    assert service.chat().json()["reply"] == "Hello."
    assert len(offline.received) == 1


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("before", BEFORE_TEXT)
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
def test_a_stream_without_a_reply_is_tried_again_at_its_done(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Not only when the upstream ends the body, which this one does not."""
    service = serve(attempt_timeout_seconds=20, deadline_seconds=5)
    endless = Scripted(
        body="data: [DONE]\n\n",
        content_type="text/event-stream",
        headers={"content-length": "9999"},
    )
    offline.script(endless)
    assert streamed(service)[1] == "done"
    assert len(offline.received) == 2


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(
    "begun", [[chunk("Hel")], [chunk(""), chunk("")], [chunk("", {"finish_reason": "stop"})]]
)
def test_a_stream_is_paid_for_once_the_model_is_at_work(
    begun: list[Any], service: Service, offline: OfflineOpenAI
) -> None:
    """One that reasons may send empty chunks for long before its text."""
    offline.script(stream(*begun, '{"error": {"code": 503}}'))
    assert streamed(service)[1] == "error"
    assert len(offline.received) == 1


def test_a_model_may_think_for_longer_than_the_deadline(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Of a stream that has begun; here byte by byte, first two empty chunks, then blank lines."""
    service = serve(attempt_timeout_seconds=None, deadline_seconds=1)
    body = (
        'data:{"choices":[{}]}\n\n' * 2 + "\n" * 200 + f"data:{json.dumps(chunk())}\n\ndata:[DONE]"
    )
    offline.script(Scripted(body=body, content_type="text/event-stream", chunk_delay=0.005))
    assert streamed(service)[:2] == ("Hello.", "done")
    assert len(offline.received) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (reply({"secret": "plan"}), "choices.0.message.content"),
        (reply([{"type": "text", "text": {"secret": "plan"}}]), "choices.0.message.content"),
        ({"choices": [{"message": "secret plan"}]}, "choices.0.message"),
        ({"choices": ["secret plan"]}, "choices.0"),
        ({"choices": "secret plan"}, "choices"),
        ({"choices": None, "id": "secret plan"}, "choices.0.message"),
        ({"choices": []}, "choices.0.message"),
        ({}, "choices.0.message"),
        (chunk("secret plan"), "choices.0.message"),
    ],
)
def test_the_log_names_the_field_that_cannot_be_read(
    body: Any,
    field: str,
    serve: Callable[..., Service],
    offline: OfflineOpenAI,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = serve(max_attempts=1)
    offline.script(Scripted(body=json.dumps(body)))
    with caplog.at_level(logging.INFO):
        assert service.chat().json()["type"] == "urn:problem-type:upstream-error"
    assert f"{field}." in caplog.text or f"{field} (" in caplog.text
    assert "secret plan" not in caplog.text


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

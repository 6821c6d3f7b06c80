"""The offline OpenAI's replies: OpenAI's objects and events. One word is one token."""

import base64
import hashlib
import itertools
import json
import math
import re
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .offline_openai import Scripted

Json = dict[str, Any]
dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # like OpenAI
CREATED = 1_700_000_000  # fixed, so that replies are reproducible


def event(data: Json | str) -> bytes:
    """A Server-Sent Event, named where its data has a type."""
    name = f"event: {data['type']}\n" if isinstance(data, dict) and "type" in data else ""
    text = data if isinstance(data, str) else dumps(data)
    return f"{name}data: {text}\n\n".encode(errors="replace")


def example(schema: Json, definitions: Json) -> Any:
    """A value that validates against a JSON schema, of those that pydantic generates."""
    if "$ref" in schema:
        return example(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if choices := schema.get("anyOf") or schema.get("allOf"):
        return example(choices[0], definitions)
    kind = schema.get("type", "object")
    if kind == "object":
        members = schema.get("properties", {})
        return {name: example(member, definitions) for name, member in members.items()}
    if kind == "array":
        item = schema.get("items", {"type": "string"})
        return [example(item, definitions)] * schema.get("minItems", 1)
    number = schema.get("minimum", 1)
    return {"string": "text", "number": number, "integer": number, "boolean": True}.get(kind)


def text_of(item: Json) -> str:
    """The text of a message or of a tool's output, whose content is a string or a list of parts."""
    content = item.get("content") or item.get("output") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", f"[{part['type']}]") for part in content)


def default_reply(items: list[Json], schema: Json | None) -> str:
    if schema is not None:
        return json.dumps(example(schema, schema.get("$defs", {})))
    texts = [text_of(i) for i in items if i.get("role") in ("user", "tool") or "output" in i]
    return f"This is the offline OpenAI, not a model. You said: {texts[-1] if texts else ''}"


class Generated:
    """The content: text, JSON for the requested schema, or a call of the first tool."""

    def __init__(self, body: Json, script: "Scripted") -> None:
        asked = body.get("messages") or body["input"]
        items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        # Chat Completions nests what the Responses API has at the top level.
        tools = [t.get("function", t) for t in body.get("tools") or [] if t["type"] == "function"]
        is_result = items[-1].get("role") == "tool" or "output" in items[-1]
        is_free = script.reply is None and not is_result and body.get("tool_choice") != "none"
        self.tool = tools[0]["name"] if tools and is_free else None
        form: Json = body.get("response_format") or (body.get("text") or {}).get("format") or {}
        schema = form.get("json_schema", form).get("schema")
        if self.tool:
            schema = tools[0].get("parameters") or {}
        text = script.reply if script.reply is not None else default_reply(items, schema)
        if script.words is not None:
            text = " ".join(itertools.islice(itertools.cycle(text.split()), script.words))
        words = re.findall(r"\s*\S+(?:\s+\Z)?|\s+", text)  # joined, they are `text` again
        limits = ("max_completion_tokens", "max_output_tokens", "max_tokens")
        most = next((body[name] for name in limits if body.get(name)), len(words))
        self.is_cut = most < len(words)
        self.words = words[:most]
        self.text = "".join(self.words)
        counts = [len(text_of(item).split()) for item in items]
        self.asked = sum(counts)
        self.cached = sum(counts[:-1])  # as if all but the last message had been sent before

    def usage(self, asked: str, said: str) -> Json:
        """`asked` and `said` are an API's names: prompt and completion, or input and output."""
        return {
            f"{asked}_tokens": self.asked,
            f"{asked}_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            f"{said}_tokens": len(self.words),
            f"{said}_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.asked + len(self.words),
        }


def model(name: str) -> Json:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "offline"}


def events(
    script: "Scripted", begin: list[Any], deltas: Iterator[Any], end: list[Any], error: Json
) -> Iterator[Any]:
    """The events of a stream, up to its scripted failure if it has one."""
    if script.stop != 0:
        yield from begin
    yield from itertools.islice(deltas, script.stop)
    if script.error_after is not None:
        yield error
    elif script.stop is None:
        yield from end


def chat(body: Json, script: "Scripted", number: int) -> Json | Iterator[Json | str]:
    """A completion, whole or as the events of a stream."""
    made = Generated(body, script)
    reason = "length" if made.is_cut else "tool_calls" if made.tool else "stop"
    reason = script.finish_reason or reason
    usage = made.usage("prompt", "completion")
    head = {"created": CREATED, "model": body["model"], "service_tier": "default"}
    head["id"] = f"chatcmpl-offline-{number}"
    call: Json = {"id": f"call_offline_{number}", "type": "function"}

    def message(text: str) -> Json:
        said: Json = {"role": "assistant", "content": None if made.tool else text, "refusal": None}
        if made.tool:
            function = {"name": made.tool, "arguments": text}
            said["tool_calls"] = [call | {"function": function}]
        return said

    if not body.get("stream"):
        choice = {"index": 0, "message": message(made.text), "logprobs": None}
        choice["finish_reason"] = reason
        return head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    head["object"] = "chat.completion.chunk"
    call["index"] = 0  # the index of the call to which a delta belongs
    is_counted = (body.get("stream_options") or {}).get("include_usage")
    if is_counted:
        head["usage"] = None

    def chunk(delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return head | {"choices": [choice]}

    def delta(word: str) -> Json:
        call = {"index": 0, "function": {"arguments": word}}
        return {"tool_calls": [call]} if made.tool else {"content": word}

    last = [head | {"choices": [], "usage": usage}] if is_counted else []
    deltas = (chunk(delta(word)) for word in made.words)
    end = [chunk({}, reason), *last, "[DONE]"]
    return events(script, [chunk(message(""))], deltas, end, script.error)


def response(body: Json, script: "Scripted", number: int) -> Json | Iterator[Json]:
    """A response of the Responses API, whole or as the events of a stream."""
    made = Generated(body, script)
    kind = "function_call" if made.tool else "message"
    delta = "function_call_arguments" if made.tool else "output_text"
    item_id = f"{kind}_offline_{number}"

    def part(text: str) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def item(status: str, *texts: str) -> Json:
        """`texts`: the arguments of a call, or the parts of a message, that were sent so far."""
        said: Json = {"role": "assistant", "content": [part(text) for text in texts]}
        if made.tool:
            said = {"name": made.tool, "arguments": "".join(texts)}
            said["call_id"] = f"call_offline_{number}"
        return {"id": item_id, "type": kind, "status": status} | said

    state = "incomplete" if made.is_cut else "completed"
    begun: Json = {"id": f"resp_offline_{number}", "object": "response", "created_at": CREATED}
    begun |= {"model": body["model"], "tools": body.get("tools") or [], "tool_choice": "auto"}
    begun |= {"parallel_tool_calls": True, "status": "in_progress", "output": [], "error": None}
    whole = begun | {"status": state, "output": [item(state, made.text)]}
    whole["usage"] = made.usage("input", "output")
    whole["incomplete_details"] = {"reason": "max_output_tokens"} if made.is_cut else None
    if not body.get("stream"):
        return whole
    place = {"item_id": item_id, "output_index": 0} | ({} if made.tool else {"content_index": 0})
    text_place = place if made.tool else place | {"logprobs": []}

    def at(name: str, **data: Any) -> Json:
        return {"type": f"response.{name}"} | data

    begin = [at("created", response=begun), at("in_progress", response=begun)]
    begin += [at("output_item.added", output_index=0, item=item("in_progress"))]
    end = [at(f"{delta}.done", **text_place, **{"arguments" if made.tool else "text": made.text})]
    if not made.tool:
        begin += [at("content_part.added", **place, part=part(""))]
        end += [at("content_part.done", **place, part=part(made.text))]
    end += [at("output_item.done", output_index=0, item=item(state, made.text))]
    end += [at(state, response=whole)]
    deltas = (at(f"{delta}.delta", **text_place, delta=word) for word in made.words)
    error = script.error["error"] | {"type": "error"}
    stream = events(script, begin, deltas, end, error)
    return (event | {"sequence_number": number} for number, event in enumerate(stream))


def embeddings(body: Json) -> Json:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    size = body.get("dimensions") or 8
    data = []
    for index, text in enumerate(texts):
        raw = [byte - 127.5 for byte in hashlib.shake_128(text.encode()).digest(size)]
        length = math.hypot(*raw)  # OpenAI's vectors also have length 1
        vector = array("f", (x / length for x in raw))
        is_packed = body.get("encoding_format") == "base64"
        coded = base64.b64encode(vector.tobytes()).decode() if is_packed else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": coded})
    words = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}

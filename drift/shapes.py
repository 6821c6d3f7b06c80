"""The shape of an answer, and how two of them differ.

A shape has the path of each field, such as `choices[].message`, and which types it was seen to
have there. The elements of a list have one path: what any of them has counts.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from .exchanges import Answer

# Strings by which programs tell replies apart. Others are text, names or numbers of something.
TELLING = {"code", "object", "role", "type"}
# Which of these comes depends on the model, too; one that is not here is new to the service.
KNOWN = {
    "finish_reason": {"stop", "length", "tool_calls", "content_filter"},
    "status": {"completed", "incomplete", "in_progress", "failed"},
}
HEADERS = ("x-request-id",)  # that the service reads in an answer that is no refusal


@dataclass
class Shape:
    types: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    strings: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, value: Any, path: str) -> "Shape":  # noqa: ANN401 - JSON of any shape
        kind = type_of(value)
        self.types[path].add(kind)
        if kind == "object":
            for name, member in value.items():
                self.add(member, f"{path}.{name}")
        elif kind == "list":
            for item in value:
                self.add(item, f"{path}[]")
        elif kind in ("string", "null"):
            self.strings[path].add(value or kind)
        return self


@dataclass(frozen=True)
class Difference:
    is_drift: bool  # the offline OpenAI promises what the real API does not do
    text: str


def type_of(value: Any) -> str:  # noqa: ANN401 - JSON of any shape
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def parent_of(path: str) -> str:
    return path[:-2] if path.endswith("[]") else path.rpartition(".")[0]


def differences(real: Answer, offline: Answer) -> Iterator[Difference]:
    for name, here, there in (
        ("status", f"{real.status}{reason(real)}", f"{offline.status}{reason(offline)}"),
        ("content type", real.media_type, offline.media_type),
    ):
        if here.split()[0] != there.split()[0]:
            yield Difference(True, f"{name}: {here} in the real API, {there} offline")
            return
    for name in HEADERS:
        if name in offline.headers and name not in real.headers:
            yield Difference(True, f"the real API lacks the header {name}")
    yield from orders([name for name, _ in real.events], [name for name, _ in offline.events])
    yield from shapes(shape_of(real), shape_of(offline))


def reason(answer: Answer) -> str:
    """The code of an error, whose message might hold a secret."""
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return f" ({code})" if code else ""


def shape_of(answer: Answer) -> Shape:
    shape = Shape()
    if not answer.events:
        return shape.add(answer.body, "response")
    for name, data in answer.events:
        if data is not None:
            shape.add(data, f"event {name}")
    return shape


def orders(real: list[str], offline: list[str]) -> Iterator[Difference]:
    """How the events of two streams follow each other; how many of a kind does not count."""
    sent = [name for name, _ in groupby(real)]
    if missing := [name for name in dict.fromkeys(offline) if name not in real]:
        yield Difference(True, f"the real API lacks the events {', '.join(missing)}")
    else:
        rest = iter(sent)
        if not all(name in rest for name, _ in groupby(offline)):  # `in` reads up to the name
            yield Difference(True, f"the real API has another order: {', '.join(sent)}")
    if others := [name for name in dict.fromkeys(real) if name not in offline]:
        yield Difference(False, f"the real API also has the events {', '.join(others)}")


def shapes(real: Shape, offline: Shape) -> Iterator[Difference]:
    for path, types in real.types.items():
        parent = parent_of(path)
        if path not in offline.types and "object" in offline.types.get(parent, ()):
            name, kinds = path.removeprefix(f"{parent}."), " or ".join(sorted(types))
            yield Difference(False, f"{parent}: the real API also has `{name}` ({kinds})")
    for path, types in offline.types.items():
        parent = parent_of(path)
        if path not in real.types:
            # Without an element or an object, there is no evidence.
            if "object" in real.types.get(parent, ()):
                name = path.removeprefix(f"{parent}.")
                yield Difference(True, f"{parent}: the real API lacks `{name}`")
            continue
        seen, told = real.types[path] - {"null"}, types - {"null"}
        if seen and told and seen != told:  # of a null, nobody knows what it could be
            listed = [" or ".join(sorted(kinds)) for kinds in (seen, told)]
            text = "{}: {} in the real API, {} offline".format(path, *listed)
            yield Difference(bool(told - seen), text)
        yield from values(path, real.strings.get(path, set()), offline.strings.get(path, set()))


def values(path: str, real: set[str], offline: set[str]) -> Iterator[Difference]:
    name = path.rpartition(".")[2]
    if name in KNOWN:
        for value in sorted(real - KNOWN[name] - {"null"}):
            yield Difference(True, f"{path}: `{value}` in the real API is new")
    elif name in TELLING and real and offline - real:
        listed = [", ".join(f"`{one}`" for one in sorted(strings)) for strings in (real, offline)]
        yield Difference(True, "{}: {} in the real API, {} offline".format(path, *listed))

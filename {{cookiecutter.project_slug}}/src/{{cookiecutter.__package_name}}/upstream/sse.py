"""Parses Server-Sent Events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""


class Decoder:
    """Incremental: the input may be split at any byte."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, read: bytes) -> list[bytes]:
        """The data of each event that is complete by now."""
        read = self._rest + read
        if b"\r" in read:  # legal alone, too, but no server sends that
            read = read.replace(b"\r\n", b"\n")
        *blocks, self._rest = read.split(b"\n\n")
        return [data for block in blocks if (data := _data(block))]


def _data(block: bytes) -> bytes:
    """The `data` lines of an event, joined; comments and other fields are ignored."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[len(b"data: ") :]  # fast path: OpenAI's own events
    lines = block.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    values = [line[len(b"data:") :] for line in lines if line.startswith(b"data:")]
    return b"\n".join(value.removeprefix(b" ") for value in values)

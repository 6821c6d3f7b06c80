"""Parses Server-Sent Events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""


class Decoder:
    """Incremental: the input may be split at any byte."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False

    def feed(self, read: bytes) -> list[bytes]:
        """The data of each event that is complete by now; pass `b""` at the end of the body."""
        if not read:
            read = b"\n\n"  # some servers omit it after the last event
        if self._after_cr:  # the \r ended its line: a \n now is the rest of \r\n
            read = read.removeprefix(b"\n")
        self._after_cr = read.endswith(b"\r")
        if b"\r" in read:
            read = read.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, self._rest = (self._rest + read).split(b"\n\n")
        return [data for block in blocks if (data := _data(block))]


def _data(block: bytes) -> bytes:
    """The `data` lines of an event, joined; comments and other fields are ignored.

    An event named `error` becomes `{"error": data}`.
    """
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[len(b"data: ") :]  # fast path: OpenAI's own events
    lines = block.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    values = [line[len(b"data:") :] for line in lines if line.startswith(b"data:")]
    data = b"\n".join(value.removeprefix(b" ") for value in values)
    is_error = b"event: error" in lines or b"event:error" in lines
    return b'{"error": %b}' % data if data and is_error else data

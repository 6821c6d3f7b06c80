"""Reads Server-Sent Events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""


class Decoder:
    """Finds the data of events in bytes that may be cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False

    def feed(self, read: bytes) -> list[bytes]:
        """The data of each event that is whole by now; `b""` says that no more will come."""
        if not read:
            read = b"\n\n"  # which some servers forget after the last event
        if self._after_cr:  # which has ended its line, with or without this
            read = read.removeprefix(b"\n")
        self._after_cr = read.endswith(b"\r")
        if b"\r" in read:
            read = read.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, self._rest = (self._rest + read).split(b"\n\n")
        return [data for block in blocks if (data := _data(block))]


def _data(block: bytes) -> bytes:
    """Comments and other fields left out, several lines of data joined.

    The data of an `error` event is returned as `{"error": data}`.
    """
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[len(b"data: ") :]  # as OpenAI writes them all
    lines = block.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    values = [line[len(b"data:") :] for line in lines if line.startswith(b"data:")]
    data = b"\n".join(value.removeprefix(b" ") for value in values)
    is_error = b"event: error" in lines or b"event:error" in lines
    return b'{"error": %b}' % data if data and is_error else data

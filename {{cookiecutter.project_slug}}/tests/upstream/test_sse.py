import pytest

from ..conftest import sse

STREAM = """\ufeff: a comment

data: {"a": 1}

event: delta
id: 7
retry: 3
data:one
data:  two

: ping


data: “ä”

data:

event: nothing

data: cut"""

DATA = ['{"a": 1}', "one\n two", "“ä”"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_data_is_found_wherever_the_bytes_are_cut(line_end: str, size: int) -> None:
    stream = STREAM.replace("\n", line_end).encode()
    decoder = sse.Decoder()
    reads = [stream[at : at + size] for at in range(0, len(stream), size)]
    found = [data.decode() for read in reads for data in decoder.feed(read)]
    assert [data.splitlines() for data in found] == [data.splitlines() for data in DATA]


@pytest.mark.parametrize("event", [b"data: one\n\n", b"data: one\r\n\r\n"])
def test_an_event_waits_for_nothing_that_follows(event: bytes) -> None:
    assert sse.Decoder().feed(event) == [b"one"]


def test_all_events_of_a_read_are_found_in_order() -> None:
    decoder = sse.Decoder()
    assert decoder.feed(b"data: 1\n\ndata: 2\n\nda") == [b"1", b"2"]
    assert decoder.feed(b"ta: 3\n\n") == [b"3"]

"""Parses a streamed chat completion."""

from collections.abc import Iterator

import httpx2

from ..errors import BrokenReply
from ..upstream.error_bodies import error_in, is_json, read_json
from ..upstream.sse import Decoder
from .completions import UNREADABLE, metadata_of, text_of, with_model
from .schemas import ChatDelta, ChatDone


class StreamedReply:
    """Incremental: `feed` it the bytes of the response as they arrive."""

    def __init__(self, response: httpx2.Response) -> None:
        self.is_over = False
        """Whether the last event has arrived."""
        self._response = response
        self._is_json = is_json(response)
        self._decoder = Decoder()
        self._has_begun = False
        self._metadata = metadata_of({}, {})

    def feed(self, read: bytes) -> Iterator[ChatDelta]:
        """Yield one delta with the text of all chunks in `read`.

        The first delta, which may be empty, means that the model is generating: from then on,
        failures are not retried.

        Raises:
            BrokenReply, openai.APIStatusError: after yielding the text that precedes the failure.
        """
        texts: list[str] = []
        had_begun = self._has_begun
        # A server that does not stream sends JSON: the HTTP client has read all of it.
        self.is_over = self._is_json and read.startswith(b"{")
        try:
            for data in [read] if self.is_over else self._decoder.feed(read):
                if data.strip() == b"[DONE]":
                    self.is_over = self._has_begun
                    break
                texts.append(self._add(data))
        except UNREADABLE as error:
            raise BrokenReply from error
        finally:  # also before a failure: the text that precedes it is not lost
            text = "".join(texts)
            if text or self._has_begun > had_begun:
                yield ChatDelta(text=text)

    def is_whole(self) -> bool:
        """Whether the text is complete: a finish_reason has arrived. Metadata may follow."""
        return self._metadata["finish_reason"] is not None

    def to_done(self) -> ChatDone:
        """The end of the stream.

        Raises:
            BrokenReply: the reply is missing, or was cut.
        """
        if not (self.is_whole() or (self.is_over and self._has_begun)):
            raise BrokenReply("the stream ended before its reply did")
        return ChatDone(**with_model(self._metadata, self._response))

    def _add(self, data: bytes) -> str:
        """Add a chunk and return its text."""
        if error := error_in(data, self._response):
            raise error
        chunk = read_json(data) or {}  # some servers send null
        choice = (chunk.get("choices") or [{}])[0]
        # A gateway may send a whole message as one event.
        text = text_of(choice.get("delta") or choice.get("message") or {})
        for name, value in metadata_of(chunk, choice).items():
            if value is not None:
                self._metadata[name] = value
        self._has_begun = self._has_begun or bool(chunk.get("choices"))
        return text

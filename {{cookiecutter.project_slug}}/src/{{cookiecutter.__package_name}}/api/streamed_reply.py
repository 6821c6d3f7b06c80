"""Parses a streamed chat completion."""

from collections.abc import Iterator

import httpx2
import openai

from ..errors import BrokenReply
from ..upstream.sse import Decoder
from .completions import first_choice, metadata_of, parse, read_reply, text_of, with_model
from .schemas import ChatDelta, ChatDone


class StreamedReply:
    """Incremental: `feed` it the bytes of the response as they arrive."""

    def __init__(self, response: httpx2.Response) -> None:
        self.is_over = False
        """Whether the last event has arrived."""
        self._response = response
        self._decoder = Decoder()
        self._before_events: bytes | None = b""  # None after the first event
        self._texts: list[str] = []
        self._has_begun = False
        self._has_choice = False
        self._metadata = metadata_of({}, {})

    def feed(self, read: bytes) -> Iterator[ChatDelta]:
        """Yield one delta with the text of all chunks in `read`; pass `b""` at the end of the body.

        The first delta, which may be empty, means that the model is generating: from then on,
        failures are not retried.

        Raises:
            BrokenReply, openai.APIError: after yielding the text that precedes the failure.
        """
        had_begun, failure = self._has_begun, None
        try:
            self._feed(read)
        except (BrokenReply, openai.APIError) as error:
            if self.is_whole() and isinstance(error, BrokenReply):
                self.is_over = True
            else:
                failure = error
        text = "".join(self._texts)
        self._texts.clear()
        if text or self._has_begun > had_begun:
            yield ChatDelta(text=text)
        if failure:
            raise failure

    def is_whole(self) -> bool:
        """Whether the text is complete: a finish_reason has arrived. Metadata may follow."""
        return self._metadata["finish_reason"] is not None

    def to_done(self) -> ChatDone:
        return ChatDone(**with_model(self._metadata, self._response))

    def _feed(self, read: bytes) -> None:
        for event in self._decoder.feed(read):
            self._before_events = None
            data = event.strip()
            if data == b"[DONE]":
                if not self._has_choice:
                    raise BrokenReply("the stream ended without a reply")
                self._has_begun = self.is_over = True  # an empty reply is a reply
                return
            if data:
                self._add(parse(data, self._response))
        if self._before_events is not None:
            self._before_events += read
        if not read:
            if self._before_events:
                self._add_whole(self._before_events)
            elif not self.is_whole():
                raise BrokenReply("the stream ended before its reply did")
            self.is_over = True

    def _add(self, chunk: object) -> None:
        if not isinstance(chunk, dict):
            return
        choice = first_choice(chunk)
        # A gateway may send a whole message as one event.
        message = choice and (choice.get("delta") or choice.get("message"))
        text = text_of(message, "choices.0.delta") if message else ""
        self._texts.append(text)
        for name, value in metadata_of(chunk, choice or {}).items():
            if value is not None:
                self._metadata[name] = value
        if choice is not None:
            # The first chunk often has only a role: a retry after it costs little. A second chunk,
            # even an empty one, means that the model is generating, which is billed. A reasoning
            # model may send empty chunks for longer than the deadline.
            self._has_begun = self._has_choice or bool(text) or self.is_whole()
            self._has_choice = True

    def _add_whole(self, body: bytes) -> None:
        """Add the body of a server that does not stream."""
        reply = read_reply(body, self._response)
        self._texts.append(reply.reply)
        self._metadata = dict(reply)
        self._has_begun = True

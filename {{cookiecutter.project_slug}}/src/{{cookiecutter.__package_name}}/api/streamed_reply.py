"""Parses a streamed chat completion."""

from collections.abc import Iterator

import httpx2
import openai

from ..errors import BrokenReply
from ..upstream.sse import Decoder
from .completions import asked_model, first_choice, parse, parse_reply, text_of, to_string, to_usage
from .schemas import ChatDelta, ChatDone, ChatReply, Usage


class StreamedReply:
    """What the bytes of a streamed reply say."""

    def __init__(self, response: httpx2.Response) -> None:
        self.is_over = False
        """Whether the last event has come."""
        self._response = response
        self._decoder = Decoder()
        self._before_events: bytes | None = b""  # None from the first event on
        self._texts: list[str] = []
        self._has_begun = False
        self._has_choice = False
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def feed(self, read: bytes) -> Iterator[ChatDelta]:
        """Yield the text of all the chunks in `read` together; `b""` is the end of the body.

        The first delta, which may be empty, says that the model is at work: from then on, a failure
        is not retried.

        Raises:
            BrokenReply, openai.APIError: after the text that came before it.
        """
        had_begun, failure = self._has_begun, None
        try:
            self._feed(read)
        except (BrokenReply, openai.APIError) as error:
            if self._finish_reason and isinstance(error, BrokenReply):
                self.is_over = True  # only metadata comes after a finish_reason
            else:
                failure = error
        text = "".join(self._texts)
        self._texts.clear()
        if text or self._has_begun > had_begun:
            yield ChatDelta(text=text)
        if failure:
            raise failure

    def is_whole(self) -> bool:
        """Whether only metadata may be missing."""
        return self._finish_reason is not None

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
                self._add_whole(parse_reply(self._before_events, self._response))
            elif self._finish_reason is None:
                raise BrokenReply("the stream ended before its reply did")
            self.is_over = True

    def _add(self, chunk: object) -> None:
        if not isinstance(chunk, dict):
            return
        self._model = to_string(chunk.get("model")) or self._model
        self._usage = to_usage(chunk.get("usage")) or self._usage
        if (choice := first_choice(chunk)) is not None:
            # A gateway may send a whole message as one event.
            message = choice.get("delta") or choice.get("message")
            text = text_of(message, "choices.0.delta") if message else ""
            self._texts.append(text)
            self._finish_reason = to_string(choice.get("finish_reason")) or self._finish_reason
            # The first chunk often carries only a role: to retry after it costs little. A second,
            # even if empty, means that the model is generating, which is billed; a reasoning
            # model may send empty chunks for longer than the deadline.
            self._has_begun = self._has_choice or bool(text or self._finish_reason)
            self._has_choice = True

    def _add_whole(self, reply: ChatReply) -> None:
        """Of a server that does not stream."""
        self._texts.append(reply.reply)
        self._model, self._usage = reply.model, reply.usage
        self._finish_reason = reply.finish_reason
        self._has_begun = True

    def to_done(self) -> ChatDone:
        return ChatDone(
            model=self._model or asked_model(self._response),
            finish_reason=self._finish_reason,
            usage=self._usage,
        )

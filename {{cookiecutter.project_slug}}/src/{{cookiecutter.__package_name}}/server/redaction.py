"""Keeps secrets out of the log."""

import logging
import re
from collections.abc import Callable

from ..settings import Settings


class Redactor:
    """Replaces secrets in what is logged."""

    # Shorter ones are no secret, and would black out ordinary words.
    SHORTEST_SECRET = 8

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, secret: str) -> None:
        if len(secret) >= self.SHORTEST_SECRET:
            self._secrets.add(secret)
        # OpenAI's errors echo keys, its own with asterisks.
        longest_first = sorted(self._secrets, key=len, reverse=True)
        patterns = [*map(re.escape, longest_first), r"\bsk-[\w*.-]{4,}"]
        self._pattern = re.compile("|".join(patterns))

    def text(self, text: str) -> str:
        return self._pattern.sub("[redacted]", text)

    def value(self, value: object) -> object:
        """The value itself, or a text in its place if it shows a secret."""
        if value is None or isinstance(value, int | float):
            return value
        try:
            text, as_repr = str(value), "" if isinstance(value, str) else repr(value)
        except Exception:  # noqa: BLE001 - any object may be logged; whatever formats it reports this
            return value
        has_secret = self._pattern.search(text) or self._pattern.search(as_repr)
        return self.text(text) if has_secret else value


class RedactingFactory(Redactor):
    """Makes log records without secrets, whichever logger, handler and formatter they are for."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        super().__init__()
        self._make = make

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        record.msg = self.value(record.msg)
        # Of the same type and length, which some formatters depend on.
        if isinstance(record.args, tuple):
            record.args = tuple(map(self.value, record.args))
        elif record.args:
            redacted = {name: self.value(value) for name, value in record.args.items()}
            if any(redacted[name] is not value for name, value in record.args.items()):
                record.args = redacted
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
            if (redacted_traceback := self.text(traceback)) != traceback:
                # Which formatters of the standard library use instead of the exception.
                record.exc_text = redacted_traceback
        return record


def redact_in_logs(settings: Settings) -> Redactor:
    """Keep the key out of all that this process logs from now on."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, RedactingFactory):
        factory = RedactingFactory(factory)
        logging.setLogRecordFactory(factory)
    factory.add(settings.openai_api_key.get_secret_value())
    return factory

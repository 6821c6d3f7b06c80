"""Keeps the API key out of the log."""

import logging
import re
from collections.abc import Callable

from ..settings import Settings

# Shorter keys, which only other servers have, may be ordinary words.
MIN_SECRET_LENGTH = 8


class RedactingRecordFactory:
    """Redacts secrets in every log record, independent of logger, handler and formatter."""

    def __init__(self, make_record: Callable[..., logging.LogRecord]) -> None:
        self._make_record = make_record
        self._secrets: set[str] = set()

    def add_secret(self, secret: str) -> None:
        if len(secret) >= MIN_SECRET_LENGTH:
            self._secrets.add(secret)
        longest_first = sorted(self._secrets, key=len, reverse=True)
        # Also other keys and partly masked ones: OpenAI's errors quote `sk-abc***xyz`.
        self._pattern = re.compile("|".join([*map(re.escape, longest_first), r"\bsk-[\w*.-]{4,}"]))

    def redact(self, text: str) -> str:
        return self._pattern.sub("[redacted]", text)

    def _redact_value(self, value: object) -> object:
        """The value, or its redacted text if its `str` or `repr` holds a secret."""
        if value is None or isinstance(value, int | float):
            return value
        try:
            text, as_repr = str(value), "" if isinstance(value, str) else repr(value)
        except Exception:  # noqa: BLE001 - any object may be logged; the handler reports the error
            return value
        has_secret = self._pattern.search(text) or self._pattern.search(as_repr)
        return self.redact(text) if has_secret else value

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self._make_record(*args, **kwargs)
        record.msg = self._redact_value(record.msg)
        # Type and length of `args` are kept: some formatters need them, such as gunicorn's.
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._redact_value, record.args))
        elif record.args:
            redacted = {name: self._redact_value(value) for name, value in record.args.items()}
            if redacted != record.args:
                record.args = redacted
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
            if (redacted_traceback := self.redact(traceback)) != traceback:
                # The standard library's formatters prefer `exc_text` to `exc_info`.
                record.exc_text = redacted_traceback
        return record


def redact_in_logs(settings: Settings) -> RedactingRecordFactory:
    """Redact the key in all records that this process creates from now on."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, RedactingRecordFactory):
        factory = RedactingRecordFactory(factory)
    factory.add_secret(settings.openai_api_key.get_secret_value())
    logging.setLogRecordFactory(factory)
    return factory

"""Keeps secrets out of the log."""

import logging
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from ..keys import PREFIX
from ..settings import Settings

# Shorter keys, which only other servers have, may be ordinary words.
MIN_SECRET_LENGTH = 8

# Keys of OpenAI and of clients. OpenAI's errors quote partly masked ones: `sk-abc***xyz`.
KEYS = rf"\b(sk-|{PREFIX})[\w*.-]{{4,}}"
REDACTED = "[redacted]"


class RedactingRecordFactory:
    """Redacts secrets in every log record, independent of logger, handler and formatter."""

    def __init__(self, make_record: Callable[..., logging.LogRecord]) -> None:
        self._make_record = make_record
        self._secrets: set[str] = set()

    def add_secret(self, secret: str) -> None:
        if len(secret) >= MIN_SECRET_LENGTH:
            self._secrets.add(secret)
        # In reverse order, so that a secret matches before its own prefixes.
        secrets = map(re.escape, sorted(self._secrets, reverse=True))
        self._pattern = re.compile("|".join([*secrets, KEYS]))

    def redact(self, text: str) -> str:
        return self._pattern.sub(REDACTED, text)

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self._make_record(*args, **kwargs)
        try:
            message = record.getMessage()
            has_secret = bool(self._pattern.search(f"{message} {record.args}"))
        except Exception:  # noqa: BLE001 - the standard library would print the arguments
            message = f"Malformed log message in {record.pathname}, line {record.lineno}"
            has_secret = True
        if has_secret:
            record.msg, record.args = self.redact(message), ()
        if record.exc_info:
            # Formatters prefer `exc_text` to `exc_info`.
            record.exc_text = self.redact(logging.Formatter().formatException(record.exc_info))
        return record


def redact_keys(text: str) -> str:
    """For texts about settings that could not be read: only what looks like a key is known."""
    return re.sub(KEYS, REDACTED, text)


def redact_in_logs(settings: Settings) -> RedactingRecordFactory:
    """Redact secrets in all records that this process creates from now on."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, RedactingRecordFactory):
        factory = RedactingRecordFactory(factory)
    factory.add_secret(settings.openai_api_key.get_secret_value())
    password = urlsplit(settings.rate_limit_storage_uri.get_secret_value()).password or ""
    factory.add_secret(password)
    factory.add_secret(unquote(password))
    logging.setLogRecordFactory(factory)
    return factory

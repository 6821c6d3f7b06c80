"""The innermost cause of a failure, as one line for the log."""

import re

from pydantic import ValidationError

LONGEST_TEXT = 500

# In a URL, say of a proxy: the part that may hold a password.
_USERINFO = re.compile(r"(?<=//)[^/\s]*@")


def describe(error: BaseException, default: str = "") -> str:
    """The type and text of what `error` was raised for, without credentials in URLs.

    Where that has no text, `default` stands for it.
    """
    cause = _innermost(error)
    text = _fields(cause) if isinstance(cause, ValidationError) else str(cause) or default
    text = " ".join(_USERINFO.sub("", text).split())
    if len(text) > LONGEST_TEXT:  # cut between words: part of a key would not be redacted
        text = text[:LONGEST_TEXT].rpartition(" ")[0]
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _fields(error: ValidationError) -> str:
    """What is wrong where. Its own text quotes what was to be validated: the conversation."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    fields = (f"{'.'.join(map(str, e['loc'])) or 'the whole'} ({e['type']})" for e in wrong)
    return f"{error.title}: {', '.join(fields)}"


def _innermost(error: BaseException) -> BaseException:
    """Follow the exception chain down to what says most.

    Explicit causes count, and errors of the operating system (sockets, names, TLS) even where a
    library has hidden them by `raise ... from None`. A bare TimeoutError says less than the
    ConnectTimeout or ReadTimeout made of it.
    """
    found, current = error, error
    while deeper := current.__cause__ or current.__context__:
        is_explicit = deeper is current.__cause__
        if isinstance(deeper, BaseExceptionGroup):
            deeper = deeper.exceptions[0]  # one for each address of a host
        if not isinstance(deeper, Exception):
            break  # a cancellation, by which timeouts are made
        if type(deeper) is not TimeoutError and (is_explicit or isinstance(deeper, OSError)):
            found = deeper
        current = deeper
    return found

"""The settings and their validation. `environment.load_settings` reads them."""

import re
from typing import Annotated, Any, Literal

import httpx2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MAX_SECONDS = 86_400  # a day; far larger numbers overflow timers and sockets

# OpenAI's keys are long and random; placeholders (`sk-...`, `your-api-key`) have few characters.
MIN_DISTINCT_CHARACTERS = 16


class SettingsError(Exception):
    """A setting is missing or wrong. The text names it, says what to do and has no secret."""


def http_url(text: str) -> httpx2.URL | None:
    """The URL, or None if it is not an HTTP URL with a valid host."""
    try:
        url = httpx2.URL(text)
        url.raw_host.decode().encode("idna")  # name resolution does this too
    except (httpx2.InvalidURL, UnicodeError):
        return None
    is_http = url.scheme in ("http", "https") and url.host and not re.search(r"[\s\\]", text)
    return url if is_http else None


def _base_url(text: str) -> str:
    url = http_url(text)
    if url is None:
        raise ValueError("must be a URL such as https://api.openai.com/v1")
    if url.userinfo or "?" in text or "#" in text:
        raise ValueError("must be without user, password, query and fragment")
    return str(url).rstrip("/").removesuffix("/chat/completions")  # the SDK appends this


def _api_key(secret: SecretStr, info: ValidationInfo) -> SecretStr:
    key = secret.get_secret_value()
    if re.search(r"[^!-~]|[\"']", key):
        raise ValueError("has white space, quotes or characters that no key has: copy it again")
    is_openai = "api.openai.com" in info.data.get("openai_base_url", "")
    if is_openai and len(set(key)) < MIN_DISTINCT_CHARACTERS:  # other servers' keys may be short
        raise ValueError("is a placeholder: replace it with your key")
    return secret


def _matching(pattern: str, sentence: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def _split(value: object) -> object:
    """Split at commas. pydantic-settings alone would expect JSON."""
    if not isinstance(value, str):
        return value
    return [item for item in value.split(",") if item.strip()]


Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
# Unpaired surrogates come from an environment that is not UTF-8.
ModelName = Annotated[
    str, _matching(r"""[^"'\[\]\ud800-\udfff]+""", "must be without quotes and brackets")
]


class Settings(BaseSettings):
    """Each field is set by the environment variable of the same name in upper case.

    Unset, empty and blank mean the same.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
    )

    openai_base_url: Annotated[str, AfterValidator(_base_url)] = "https://api.openai.com/v1"
    openai_api_key: Annotated[SecretStr, AfterValidator(_api_key)]
    openai_model: ModelName
    """The model for requests that name none."""
    allowed_models: Annotated[frozenset[ModelName], NoDecode, BeforeValidator(_split)] = frozenset()
    """Further models that requests may name, separated by commas."""

    max_attempts: PositiveInt = 4
    attempt_timeout_seconds: Seconds | None = None
    """How long OpenAI may be silent in one attempt, or between two chunks of a stream.

    Default: `deadline_seconds`. If shorter, a slow reply is requested, and paid for, a second time
    while OpenAI still generates the first one.
    """
    deadline_seconds: Seconds = 60
    """How long a call may take, with queue, attempts and waits; a stream, until its first event."""
    stream_usage: bool = True
    """Whether to request the usage of streams: some servers refuse `stream_options`."""
    max_tokens_parameter: Annotated[
        Literal["max_completion_tokens", "max_tokens"], BeforeValidator(str.lower)
    ] = "max_completion_tokens"
    """The name under which `max_output_tokens` is sent. Older servers know only `max_tokens`."""

    # Upper bounds: about as many threads and connections as a process can have.
    max_concurrency: int = Field(default=200, gt=0, le=10_000)
    """OpenAI calls in flight, per worker. 200 are 400 calls a second if each takes 0.5 s."""
    max_queue: int = Field(default=200, ge=0, le=10_000)
    """Further calls that may queue, per worker."""
    queue_timeout_seconds: Seconds = 10
    """How long a call may queue."""
    max_body_bytes: PositiveInt = 1_048_576

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    root_path: Annotated[str, _matching(r"(/[\w.~-]+)*", "must be a path such as /chat")] = ""
    """The prefix of the URL under which a reverse proxy serves this service, such as `/chat`."""
    workers: int = Field(default=1, gt=0, le=1_000)
    shutdown_grace_seconds: int = Field(default=30, gt=0, le=MAX_SECONDS)
    """How long in-flight requests may take to finish after the signal to stop."""
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
    log_format: Annotated[Literal["console", "json"], BeforeValidator(str.lower)] = "console"

    @model_validator(mode="before")
    @classmethod
    def _without_quotes(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`docker run --env-file` keeps the quotes that a shell or a `.env` would remove."""
        for name, value in list(values.items()):
            if isinstance(value, str):
                values[name] = re.sub(r"""(?s)^(["'])(.*)\1$""", r"\2", value.strip()).strip()
        return {name: value for name, value in values.items() if value != ""}

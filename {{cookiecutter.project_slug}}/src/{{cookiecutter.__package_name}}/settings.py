"""Settings, read once at start from the environment or from `.env`."""

import re
from typing import Annotated, Literal

import httpx2
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# What people leave in place of a key, to be looked for in short ones only: OpenAI's own are
# longer, and random enough to hold any of these words by chance.
PLACEHOLDER_WORDS = ("your", "change", "replace", "placeholder", "example", "api", "xxx", "...")
PLACEHOLDER_LENGTH = 40


MAX_PORT = 65_535
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsError(Exception):
    """A setting is missing or wrong; the text names it, says what to do and holds no value."""


def _split(value: object) -> object:
    """Take `a, b`, where pydantic-settings would want JSON."""
    if not isinstance(value, str):
        return value
    return [item.strip() for item in value.split(",") if item.strip()]


class Settings(BaseSettings):
    """Each field is set by the environment variable of its name in upper case.

    Unset and empty mean the same. `load_settings` reads them with errors fit to be shown.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    openai_base_url: str = "https://api.openai.com/v1"
    openai_api_key: SecretStr
    openai_model: str
    """The model for requests that name none."""
    allowed_models: Annotated[frozenset[str], NoDecode, BeforeValidator(_split)] = frozenset()
    """Further models that requests may name, separated by commas."""

    max_attempts: PositiveInt = 4
    attempt_timeout_seconds: Seconds | None = None
    """How long OpenAI may stay silent in one attempt, and between two chunks of a stream.

    Unset, it is `deadline_seconds`: an attempt then has all the time that the deadline leaves, and
    no reply is asked for, and paid, a second time while the first is still being generated.
    """
    deadline_seconds: Seconds = 60
    """How long all attempts and waits of one call may take; a stream's until its first chunk."""
    stream_usage: bool = True
    """Whether streams ask for their usage; some servers refuse `stream_options`."""
    max_tokens_parameter: Annotated[
        Literal["max_completion_tokens", "max_tokens"], BeforeValidator(str.lower)
    ] = "max_completion_tokens"
    """What `max_output_tokens` is called; older servers know `max_tokens` only."""

    max_concurrency: PositiveInt = 200
    """Calls of OpenAI at once, in each worker: about what a core carries at half a second each."""
    max_queue: NonNegativeInt = 200
    """How many callers may wait for their turn, in each worker."""
    queue_timeout_seconds: Seconds = 10
    """How long they may wait."""
    max_body_bytes: PositiveInt = 1_048_576

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=MAX_PORT)
    workers: PositiveInt = 1
    shutdown_grace_seconds: PositiveInt = 30
    """How long running requests may take to finish once the service is told to stop."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    @field_validator("openai_base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        try:
            parts = httpx2.URL(url)
        except httpx2.InvalidURL:
            parts = httpx2.URL()
        has_port = parts.port is None or 0 < parts.port <= MAX_PORT
        if parts.scheme not in ("http", "https") or not parts.host or not has_port:
            raise ValueError("must be a URL such as https://api.openai.com/v1")
        return url

    @field_validator("openai_api_key")
    @classmethod
    def _is_key(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        key = secret.get_secret_value()
        if key != key.strip():
            raise ValueError("has white space or a line end around it: remove that")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError("has characters that no key has: copy it again")
        if _is_openai(info.data.get("openai_base_url", "")) and _is_placeholder(key):
            raise ValueError("is a placeholder: put a key of yours there")
        return secret


def _is_openai(base_url: str) -> bool:
    """Whether the URL is OpenAI's own: elsewhere, keys may have any shape."""
    return f".{httpx2.URL(base_url).host}".endswith(".api.openai.com")


def _is_placeholder(key: str) -> bool:
    text = re.sub(r"^sk-(proj-)?", "", key.lower())
    has_word = any(word in text for word in PLACEHOLDER_WORDS)
    return len(set(text)) <= 2 or (len(key) < PLACEHOLDER_LENGTH and has_word)


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: one or more are missing or wrong.
    """
    try:
        return Settings()  # type: ignore[call-arg] # the environment has them
    except ValidationError as error:
        # Without the input, which may be a secret, and without the chain, which holds it too.
        errors = error.errors(include_input=False, include_url=False)
    except UnicodeDecodeError:
        raise SettingsError(".env is not in UTF-8: save it in that encoding.") from None
    missing = [str(e["loc"][0]).upper() for e in errors if e["type"] == "missing"]
    sentences = [
        f"{str(e['loc'][0]).upper()} {re.sub('^(Value error,|Input) ', '', e['msg'])}."
        for e in errors
        if e["type"] != "missing"
    ]
    if missing:
        sentences.append(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set:"
            " put it into .env, as .env.example shows, or into the environment;"
            " `make demo` needs no key."
        )
    raise SettingsError(" ".join(sentences))

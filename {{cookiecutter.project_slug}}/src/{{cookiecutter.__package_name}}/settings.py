"""Settings, read once at start from the environment or from `.env`."""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
)

# What documentation has in place of a key: in lower case, with hyphens, without brackets around it.
PLACEHOLDER = re.compile(
    r"(sk-)?(proj-)?((your-)?(openai-)?(api-)?(key)?(-here)?|change-?me)[x.*]*"
)

MAX_PORT = 65_535
MAX_SECONDS = 86_400  # a day: timers and sockets raise OverflowError at far larger numbers

# How similar a name must be to a setting's, from 0 to 1, to be taken for a misspelling: more than
# names of other programs are, such as PORTS (0.89) or GOROOT_PATH (0.90).
SIMILARITY = 0.91

# What the SDK reads by itself and sends as headers, as regular expressions. In the last one, each
# line is a header; the SDK skips lines without a colon.
HEADER_LINE = r"( *[\w!#$%&'*+.^`|~-]+ *:[\t -~]*|[^:\n]*)"
SDK_HEADERS = {
    "OPENAI_ORG_ID": r"[\w.-]*",
    "OPENAI_PROJECT_ID": r"[\w.-]*",
    "OPENAI_CUSTOM_HEADERS": rf"{HEADER_LINE}(\n{HEADER_LINE})*",
}


class SettingsError(Exception):
    """A setting is missing or wrong; the text names it, says what to do and holds no secret."""


def _model_name(name: str) -> str:
    # Lone surrogates, of an environment that is no UTF-8, are not printable either.
    if not name.isprintable() or re.search(r"[\"'\[\]]", name):
        raise ValueError("has quotes, brackets or control characters: remove them")
    return name


Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
ModelName = Annotated[str, AfterValidator(_model_name)]


def http_url(text: str) -> httpx2.URL | None:
    """The URL; None if there is nothing to connect to, or if it is not for HTTP."""
    try:
        url = httpx2.URL(text)
        url.raw_host.decode().encode("idna")  # as name resolution does
    except (httpx2.InvalidURL, UnicodeError):
        return None
    has_port = url.port is None or 0 < url.port <= MAX_PORT
    is_http = url.scheme in ("http", "https") and url.host and has_port
    return url if is_http and not re.search(r"[\s\\]", text) else None


def _split(value: object) -> object:
    """Take `a, b`, where pydantic-settings would want JSON."""
    if not isinstance(value, str):
        return value
    return [item.strip() for item in value.split(",") if item.strip()]


class Settings(BaseSettings):
    """Each field is set by the environment variable of its name in upper case.

    Unset, empty and blank mean the same. `load_settings` reads them with errors fit to be shown.
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
    openai_model: ModelName
    """The model for requests that name none."""
    allowed_models: Annotated[frozenset[ModelName], NoDecode, BeforeValidator(_split)] = frozenset()
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

    # More threads or connections than this a process cannot have.
    max_concurrency: int = Field(default=200, gt=0, le=10_000)
    """OpenAI calls in flight, in each worker: 400 calls a second if each takes 0.5 s."""
    max_queue: int = Field(default=200, ge=0, le=10_000)
    """Further calls that may queue, in each worker."""
    queue_timeout_seconds: Seconds = 10
    """How long a call may queue."""
    max_body_bytes: PositiveInt = 1_048_576

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=MAX_PORT)
    root_path: str = ""
    """The prefix of the URL under which a reverse proxy serves this service, such as `/chat`."""
    workers: int = Field(default=1, gt=0, le=1_000)
    shutdown_grace_seconds: int = Field(default=30, gt=0, le=MAX_SECONDS)
    """How long running requests may take to finish once the service is told to stop."""
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
    log_format: Annotated[Literal["console", "json"], BeforeValidator(str.lower)] = "console"

    @model_validator(mode="before")
    @classmethod
    def _without_quotes_and_white_space(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Quotes around a value are for the shell; `docker run --env-file` leaves them there."""
        cleaned = {}
        for name, value in values.items():
            if not isinstance(value, str):
                cleaned[name] = value
                continue
            unquoted = re.sub(r"""(?s)\A\s*(["'])(.*)\1\s*\Z""", r"\2", value)
            if stripped := unquoted.strip():
                # White space in a key is refused below: more of it may be wrong.
                cleaned[name] = unquoted if name == "openai_api_key" else stripped
        return cleaned

    @field_validator("openai_base_url")
    @classmethod
    def _as_base_url(cls, text: str) -> str:
        """Without what makes no difference, so that each HTTP client makes the same of it."""
        url = http_url(text)
        if url is None:
            raise ValueError("must be a URL such as https://api.openai.com/v1")
        if url.userinfo or "?" in text or "#" in text:
            raise ValueError("must be without user, password, query and fragment")
        path = re.sub(r"/+", "/", url.raw_path.decode()).rstrip("/")
        path = path.removesuffix("/chat/completions")  # which the SDK appends
        return str(url.copy_with(raw_path=path.encode()))

    @field_validator("root_path")
    @classmethod
    def _as_root_path(cls, path: str) -> str:
        path = f"/{path.strip('/')}"
        if path == "/":
            return ""
        if not re.fullmatch(r"(/[\w~-][\w.~-]*)+", path, re.ASCII):
            raise ValueError("must be the path of a URL, such as /chat")
        return path

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
    return bool(PLACEHOLDER.fullmatch(key.lower().replace("_", "-").strip("<>${}")))


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: one or more are missing or wrong.
    """
    errors = []
    try:
        settings = Settings()  # type: ignore[call-arg] # the environment has them
    except ValidationError as error:
        # Without the input, which may be a secret, and without the chain, which holds it too.
        errors = error.errors(include_input=False, include_url=False)
    except UnicodeDecodeError:
        raise SettingsError(".env is not in UTF-8: save it in that encoding.") from None
    except OSError as error:
        raise SettingsError(f".env in {Path.cwd()} cannot be read: {error.strerror}.") from None
    sentences = [
        f"{str(e['loc'][0]).upper()} {re.sub('^(Value error,|Input) ', '', e['msg'])}."
        for e in errors
        if e["type"] != "missing"
    ]
    sentences += [
        f"{name} cannot be sent as a header: correct or unset it."
        for name, pattern in SDK_HEADERS.items()
        if not re.fullmatch(pattern, os.environ.get(name, ""), re.ASCII)
    ]
    if missing := [str(e["loc"][0]).upper() for e in errors if e["type"] == "missing"]:
        sentences += [_how_to_set(missing), *misspelled_names()]
    if sentences:
        raise SettingsError(" ".join(dict.fromkeys(sentences)))  # each once
    return settings


def _how_to_set(missing: list[str]) -> str:
    verb, pronoun = ("is", "it") if len(missing) == 1 else ("are", "them")
    text = (
        f"{' and '.join(missing)} {verb} not set: put {pronoun} into the environment,"
        f" or into .env in {Path.cwd()}"
    )
    if Path(".env.example").exists():  # in the project, not beside an installed wheel
        text += ", as .env.example shows; `make demo` needs no key"
    return f"{text}."


def misspelled_names() -> list[str]:
    """A sentence about each name, in the environment or `.env`, that is nearly a setting's."""
    settings = Settings.model_fields
    names = {*EnvSettingsSource(Settings).env_vars, *DotEnvSettingsSource(Settings).env_vars}
    return [
        f"{name.upper()} is not a setting: is {setting.upper()} meant?"
        for name in sorted(names - set(settings))
        for setting in difflib.get_close_matches(name, settings, n=1, cutoff=SIMILARITY)
    ]

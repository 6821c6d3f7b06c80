"""The settings and their validation. `environment.load_settings` reads them."""

import re
from collections import Counter
from typing import Annotated, Any, Literal, NamedTuple

import httpx2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    PositiveInt,
    RedisDsn,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MAX_SECONDS = 86_400  # a day; far larger numbers overflow timers and sockets

IN_MEMORY = "memory://"
ORIGIN = "must be origins such as https://app.example.com"

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
    return [item.strip() for item in value.split(",") if item.strip()]


class ServiceKey(NamedTuple):
    id: str
    """Names the client in limits, logs and metrics."""
    digest: str
    """SHA-256 of the key, in hexadecimal."""


class Window(NamedTuple):
    quota: int
    seconds: int


def _service_keys(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [pair.strip() for pair in value.split(",") if pair.strip()]
    # `anonymous` is what logs and metrics call clients without a key.
    pattern = r"(?!anonymous:)[A-Za-z0-9._-]{1,64}:[0-9a-f]{64}"
    if not all(re.fullmatch(pattern, pair) for pair in pairs):
        raise ValueError("must be pairs id:hash as `python -m ….keys new ID` prints them")
    keys = [ServiceKey(*pair.split(":")) for pair in pairs]
    if max(Counter(key.id for key in keys).values(), default=0) > 2:  # old and new, in a rotation
        raise ValueError("has more than two hashes for one id")
    return tuple(keys)


# Such as `60/minute` or `100/5 minutes`.
LIMIT = re.compile(
    r"(?P<quota>\d{1,12}) ?/ ?(?P<number>\d{0,6}) ?(?P<unit>second|minute|hour|day)s?", re.ASCII
)
UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


def _windows(value: object) -> object:
    if not isinstance(value, str):
        return value
    limits = [LIMIT.fullmatch(limit.strip()) for limit in value.split(";") if limit.strip()]
    windows = tuple(
        Window(int(limit["quota"]), int(limit["number"] or 1) * UNITS[limit["unit"]])
        for limit in limits
        if limit
    )
    is_readable = bool(limits) and None not in limits
    is_positive = all(window.quota and window.seconds for window in windows)
    is_distinct = len({window.seconds for window in windows}) == len(windows)
    if not (is_readable and is_positive and is_distinct):
        raise ValueError("must be like `60/minute; 1000/day`, with each window once")
    return windows


def _token_limit(windows: tuple[Window, ...], info: ValidationInfo) -> tuple[Window, ...]:
    if windows and info.data.get("max_output_tokens") is None:
        raise ValueError("needs MAX_OUTPUT_TOKENS: without it, a reply may cost any number")
    return windows


_REDIS: TypeAdapter[RedisDsn] = TypeAdapter(RedisDsn)


def _storage_uri(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value() == IN_MEMORY:
        return secret
    try:
        url = _REDIS.validate_python(secret.get_secret_value())
    except ValidationError:
        url = None
    if url is None or url.query or url.fragment:
        # Nothing is chained: it would have the password.
        raise ValueError("must be memory:// or a URL such as redis://:password@host:6379/0")
    return SecretStr(str(url))


Windows = Annotated[tuple[Window, ...], NoDecode, BeforeValidator(_windows)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
# Unpaired surrogates come from an environment that is not UTF-8.
ModelName = Annotated[
    str, _matching(r"""[^"'\[\]\ud800-\udfff]+""", "must be without quotes and brackets")
]


class Settings(BaseSettings):
    """Each field is set by the environment variable of the same name in upper case.

    Unset, empty and blank mean the same. `make docs` writes docs/settings.md from the fields.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
        use_attribute_docstrings=True,  # for docs/settings.md
    )

    openai_base_url: Annotated[str, AfterValidator(_base_url)] = "https://api.openai.com/v1"
    """Any server that speaks OpenAI's protocol: `http://` or `https://`, host and path, which
    usually ends in `/v1`."""
    openai_api_key: Annotated[SecretStr, AfterValidator(_api_key)]
    """The key with which the service calls OpenAI."""
    openai_model: ModelName
    """The model for requests that name none."""
    allowed_models: Annotated[frozenset[ModelName], NoDecode, BeforeValidator(_split)] = frozenset()
    """Further models that requests may name, separated by commas."""

    max_attempts: PositiveInt = 4
    """The most attempts of one call."""
    attempt_timeout_seconds: Seconds | None = None
    """How long OpenAI may be silent in one attempt, and between two chunks of a stream; by default
    `DEADLINE_SECONDS`. If it is shorter, a slow reply is aborted and requested again: OpenAI may
    still generate the first one, and bill both."""
    deadline_seconds: Seconds = 60
    """How long a call may take: queue, all attempts and the waits between them. For a stream, the
    time until its first event."""
    stream_usage: bool = True
    """`false` for servers that reject `stream_options`; the `usage` of streams is then `null`."""
    max_tokens_parameter: Annotated[
        Literal["max_completion_tokens", "max_tokens"], BeforeValidator(str.lower)
    ] = "max_completion_tokens"
    """The name under which `max_output_tokens` is sent: `max_tokens` for older servers."""

    # Upper bounds: about as many threads and connections as a process can have.
    max_concurrency: int = Field(default=200, gt=0, le=10_000)
    """Calls of OpenAI in flight, per worker. 200 are 400 calls a second if each takes 0.5 s."""
    max_queue: int = Field(default=200, ge=0, le=10_000)
    """Further calls that may queue, per worker, first come, first served; more are refused."""
    queue_timeout_seconds: Seconds = 10
    """How long a call may queue."""
    max_body_bytes: PositiveInt = 1_048_576
    """The largest request body."""
    max_messages: PositiveInt | None = None
    """The most messages of a request."""
    max_message_characters: PositiveInt | None = None
    """The most characters in the texts of one message."""
    max_output_tokens: PositiveInt | None = None
    """The most that `max_output_tokens` may be, and what is sent for requests that name none."""

    service_api_keys: Annotated[
        tuple[ServiceKey, ...], NoDecode, BeforeValidator(_service_keys)
    ] = ()
    """The keys of clients, as pairs `id:hash`, separated by commas; `keys.py` makes them. An id may
    have two hashes, while its key is replaced."""
    allow_anonymous: bool = False
    """`true` to let clients call without a key, even from other machines."""
    public_docs: bool = False
    """`true` to show `/docs` and `/openapi.json` without a key."""
    cors_origins: Annotated[
        tuple[Annotated[str, _matching(r"\*|https?://[^/\s]+", ORIGIN)], ...],
        NoDecode,
        BeforeValidator(_split),
    ] = ()
    """Origins whose pages may call the service from a browser, separated by commas, such as
    `https://app.example.com`; `*` for all."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)] = ()
    """Addresses or networks of proxies whose `X-Forwarded-For` names the client, separated by
    commas. uvicorn and `fastapi run` also believe proxies on 127.0.0.1, unless run with
    `--no-proxy-headers`."""
    rate_limit: Windows = ()
    """Requests of each client, such as `60/minute; 1000/day`."""
    token_limit: Annotated[Windows, AfterValidator(_token_limit)] = ()
    """Tokens of each client, input and output, such as `200000/day`; needs `MAX_OUTPUT_TOKENS`."""
    rate_limit_storage_uri: Annotated[SecretStr, AfterValidator(_storage_uri)] = SecretStr(
        IN_MEMORY
    )
    """Where requests and tokens are counted: `memory://` in each worker for itself,
    `redis://:password@host:6379/0` or `rediss://…` for all processes together."""
    rate_limit_fail_closed: bool = False
    """`true` to refuse requests while Redis is away, instead of counting in each worker."""

    host: str = "127.0.0.1"
    """The address to listen on. conda and some shells set `HOST`: unset it there, or set it
    yourself. Like `PORT` and `WORKERS`, only for `python -m`: other servers have their own options.
    """
    port: int = Field(default=8000, ge=0, le=65_535)
    """The port to listen on; 0 for any free one, which the log names."""
    workers: int = Field(default=1, gt=0, le=1_000)
    """Processes that serve requests, about one for each core."""
    root_path: Annotated[str, _matching(r"(/[\w.~-]+)*", "must be a path such as /chat")] = ""
    """The prefix under which a reverse proxy serves this service, such as `/chat`; the proxy may
    strip it from the path or pass it on. If it strips it, the prefix must not be `/v1`, which could
    not be told from the endpoints' own."""
    shutdown_grace_seconds: int = Field(default=30, gt=0, le=MAX_SECONDS)
    """How long in-flight requests, streams included, may take to finish when the service stops."""
    shutdown_drain_seconds: int = Field(default=5, ge=0, le=MAX_SECONDS)
    """How long new requests are still served after SIGTERM, so that load balancers see that
    `/readyz` fails; part of the grace. Later ones get 503. Ctrl-C stops without it."""
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
    """The least severe lines that are logged."""
    log_format: Annotated[Literal["console", "json"], BeforeValidator(str.lower)] | None = None
    """`json` for one JSON object per line; by default `console` if stderr is a terminal, else
    `json`. Also applies to the server's own lines; its access log is replaced by the service's."""
    log_prompts: bool = False
    """`true` to log what is sent to OpenAI, and its replies."""

    @model_validator(mode="before")
    @classmethod
    def _without_quotes(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`docker run --env-file` keeps the quotes that a shell or a `.env` would remove."""
        for name, value in list(values.items()):
            if isinstance(value, str):
                values[name] = re.sub(r"""(?s)^(["'])(.*)\1$""", r"\2", value.strip()).strip()
        return {name: value for name, value in values.items() if value != ""}

"""Reads the settings from the environment and from `.env`."""

import difflib
import os
import re
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from .settings import Settings, SettingsError

# difflib ratio from which an unknown name counts as a misspelled setting. Variables of other
# programs are below it: PORTS has 0.89, GOROOT_PATH 0.90.
SIMILARITY = 0.91

# Variables that the SDK reads itself and sends as headers, with patterns of valid values. Each line
# of the last is a header; the SDK skips lines without a colon.
HEADER_LINE = r"( *[\w!#$%&'*+.^`|~-]+ *:[\t -~]*|[^:\n]*)"
SDK_HEADERS = {
    "OPENAI_ORG_ID": r"[\w.-]*",
    "OPENAI_PROJECT_ID": r"[\w.-]*",
    "OPENAI_CUSTOM_HEADERS": rf"{HEADER_LINE}(\n{HEADER_LINE})*",
}


def load_settings() -> Settings:
    """Read and validate the settings.

    Raises:
        SettingsError: settings are missing or wrong. Its text names all of them.
    """
    errors = []
    try:
        settings = Settings()  # type: ignore[call-arg] # from the environment
    except ValidationError as error:
        # Without the input, which may be a secret; for the same reason, nothing is chained.
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
        raise SettingsError(" ".join(dict.fromkeys(sentences)))  # without duplicates
    return settings


def _how_to_set(missing: list[str]) -> str:
    verb, pronoun = ("is", "it") if len(missing) == 1 else ("are", "them")
    text = (
        f"{' and '.join(missing)} {verb} not set: put {pronoun} into the environment,"
        f" or into .env in {Path.cwd()}"
    )
    if Path(".env.example").exists():  # not where only a wheel is installed
        text += ", as .env.example shows; `make demo` needs no key"
    return f"{text}."


def misspelled_names() -> list[str]:
    """A sentence for each name, in the environment or `.env`, that is close to a setting's."""
    settings = Settings.model_fields
    names = {*EnvSettingsSource(Settings).env_vars, *DotEnvSettingsSource(Settings).env_vars}
    return [
        f"{name.upper()} is not a setting: is {setting.upper()} meant?"
        for name in sorted(names - set(settings))
        for setting in difflib.get_close_matches(name, settings, n=1, cutoff=SIMILARITY)
    ]

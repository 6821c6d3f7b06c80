"""Reads the settings from the environment and from `.env`."""

import difflib
import re
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from .settings import Settings, SettingsError

# difflib ratio from which an unknown name counts as a misspelled setting. Variables of other
# programs are below it: PORTS has 0.89, GOROOT_PATH 0.90.
SIMILARITY = 0.91


def load_settings() -> Settings:
    """Read and validate the settings.

    Raises:
        SettingsError: settings are missing or wrong. Its text names all of them.
    """
    try:
        return Settings()  # type: ignore[call-arg] # from the environment
    except ValidationError as error:
        # Without the input, which may be a secret; for the same reason, nothing is chained.
        errors = error.errors(include_input=False, include_url=False)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f".env in {Path.cwd()} cannot be read as UTF-8: {error}.") from None
    sentences = [*map(_sentence, errors), *misspelled_names()]
    raise SettingsError(" ".join(dict.fromkeys(sentences)))  # without duplicates


def _sentence(error: ErrorDetails) -> str:
    name = str(error["loc"][0]).upper()
    if error["type"] == "missing":
        return f"{name} is not set: put it into the environment, or into .env in {Path.cwd()}."
    return f"{name} {re.sub('^(Value error,|Input|String) ', '', error['msg'])}."


def misspelled_names() -> list[str]:
    """A sentence for each name, in the environment or `.env`, that is close to a setting's."""
    settings = Settings.model_fields
    names = {*EnvSettingsSource(Settings).env_vars, *DotEnvSettingsSource(Settings).env_vars}
    return [
        f"{name.upper()} is not a setting: is {setting.upper()} meant?"
        for name in sorted(names - set(settings))
        for setting in difflib.get_close_matches(name, settings, n=1, cutoff=SIMILARITY)
    ]

"""`python -m` this package: the service, with its settings applied."""

import signal
import sys
from typing import NoReturn

import uvicorn

from . import key_check
from .settings import SettingsError, load_settings
from .shutdown import CLOSING_SECONDS, SIGNALS
from .telemetry import configure_logging, redact_in_logs

EX_CONFIG = 78  # sysexits.h; Windows lacks `os.EX_CONFIG`


def main() -> None:
    # Until uvicorn handles them, and once it has stopped.
    for number in SIGNALS:
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        settings = load_settings()
        configure_logging(settings)
        redact_in_logs(settings.openai_api_key.get_secret_value())
        # Before any worker is there: a supervisor would start one that refuses again and again.
        verdict = key_check.try_key_at_start(settings)
    except SettingsError as error:
        _refuse(str(error))
    if verdict.status is key_check.KeyStatus.REJECTED:
        _refuse(verdict.sentence)
    uvicorn.run(
        f"{__package__}.app:create_app",
        factory=True,
        # uvloop takes one new connection a turn: under load, some wait for seconds to be let in.
        loop="asyncio",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        log_config=None,  # it is configured, and `create_app` does so in each worker
        access_log=False,
        server_header=False,
    )


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()

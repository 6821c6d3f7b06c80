"""`python -m` this package: the service, with its settings applied."""

import os
import signal
import sys
from typing import NoReturn

import uvicorn

from . import key_check
from .settings import SettingsError, load_settings
from .shutdown import CLOSING_SECONDS, SIGNALS
from .telemetry import log_config

EX_CONFIG = 78  # sysexits.h; Windows lacks `os.EX_CONFIG`


def main() -> None:
    # Once uvicorn has stopped, it passes the signal on to the handler before its own. All is closed
    # by then, and a thread that never ends would keep an ordinary exit waiting.
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    try:
        settings = load_settings()
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
        log_config=log_config(settings),
        access_log=False,
        server_header=False,
    )


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()

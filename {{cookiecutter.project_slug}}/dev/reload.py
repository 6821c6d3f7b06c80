"""Run the service and start it anew whenever a file in src changes: `make dev`."""

import os
import sys
from importlib import import_module

import uvicorn

EX_CONFIG = 78  # sysexits.h, as `python -m` the package ends


def main(package: str) -> None:
    os.environ["SHUTDOWN_GRACE_SECONDS"] = "1"  # a change should show soon, also during a stream
    settings = import_module(f"{package}.settings")
    try:
        address = settings.load_settings()
    except settings.SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(EX_CONFIG)
    uvicorn.run(
        f"{package}.app:create_app",
        factory=True,
        host=address.host,
        port=address.port,
        reload=True,
        reload_dirs=["src"],
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main(sys.argv[1])

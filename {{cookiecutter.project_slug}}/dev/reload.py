"""Run the service, and restart it whenever a file in src changes: `make dev`."""

import os
import sys
from importlib import import_module

import uvicorn


def main(package: str) -> None:
    os.environ["SHUTDOWN_GRACE_SECONDS"] = "1"  # restart soon, even during a stream
    os.environ["SHUTDOWN_DRAIN_SECONDS"] = "0"
    service = import_module(f"{package}.process")
    try:
        settings = service.load_usable_settings()
        service.listen(settings.host, settings.port).close()  # fails early if HOST or PORT is wrong
    except service.SettingsError as error:
        service.refuse(str(error))
    uvicorn.run(
        f"{package}.app:create_app",
        factory=True,
        loop="asyncio",  # like `python -m` the package
        host=settings.host,
        port=settings.port,
        reload=True,
        reload_dirs=["src"],
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main(sys.argv[1])

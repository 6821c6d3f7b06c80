"""`python -m` this package: the service as a process of its own."""

import signal
import sys

if __name__ == "__main__":
    # Before the imports, which take a second: as process 1 of a container, Python ignores a signal
    # that has no handler. uvicorn installs its own, and restores these when it has ended.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    from .process import main

    main()

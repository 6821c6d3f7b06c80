"""Run the service against the offline OpenAI and send it requests: `make demo` needs no key."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from .offline_openai import Scripted, running

STARTS_WITHIN = 60  # seconds; the first import compiles all packages
README = Path(__file__).parents[1] / "README.md"
QUESTION = {"messages": [{"role": "user", "content": "What is an event loop?"}]}


@contextmanager
def serving(package: str, openai_url: str) -> Iterator[httpx2.Client]:
    """Run `python -m` the package for the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        "OPENAI_API_KEY": "sk-offline-needs-no-key",
        "OPENAI_BASE_URL": openai_url,
        "OPENAI_MODEL": "offline",
        "PORT": str(port),
        # Whatever the shell, conda or a proxy's user has set.
        "HOST": "127.0.0.1",
        "ROOT_PATH": "",
        "WORKERS": "1",
        "SERVICE_API_KEYS": "",
        "NO_PROXY": "127.0.0.1",
        "SHUTDOWN_DRAIN_SECONDS": "0",
        "LOG_LEVEL": "WARNING",
    }
    with (
        tempfile.TemporaryDirectory() as folder,  # a folder without .env
        subprocess.Popen(
            [sys.executable, "-m", package], env=os.environ | env, cwd=folder
        ) as service,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        try:
            wait_until_ready(service, client)
            yield client
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()


def wait_until_ready(service: "subprocess.Popen[bytes]", client: httpx2.Client) -> None:
    ends_at = time.monotonic() + STARTS_WITHIN
    while service.poll() is None and time.monotonic() < ends_at:
        with suppress(httpx2.TransportError):
            if client.get("/readyz").is_success:
                return
        time.sleep(0.05)
    sys.exit("The service did not start: see its messages above.")


def show(request: str, response: httpx2.Response) -> None:
    print(f"\n$ {request}\nHTTP {response.status_code}")
    print(json.dumps(response.json(), indent=2))


def print_as_it_arrives(response: httpx2.Response) -> None:
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "delta":
            print(json.loads(value)["text"], end="", flush=True)
        elif name == "data":
            print(f"\nevent: {event}\ndata: {value}")


def main(package: str) -> None:
    with running(Scripted(chunk_delay=0.1)) as offline:
        print(f"The offline OpenAI, which is no model, listens at {offline.url}")
        print(f"Starting the service: python -m {package}")
        with serving(package, offline.url) as client:
            body = json.dumps(QUESTION)
            show(f"POST /v1/chat {body}", client.post("/v1/chat", json=QUESTION))

            print(f"\n$ POST /v1/chat/stream {body}")
            with client.stream("POST", "/v1/chat/stream", json=QUESTION) as response:
                print_as_it_arrives(response)

            print("\n$ the same, while OpenAI says that the quota is used up")
            offline.script(Scripted(status=429, type="insufficient_quota"))
            show(f"POST /v1/chat {body}", client.post("/v1/chat", json=QUESTION))
        print(f"\nThe service has stopped. How to run it with a key of yours: {README}")


if __name__ == "__main__":
    main(sys.argv[1])

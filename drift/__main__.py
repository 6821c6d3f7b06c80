"""Compare the offline OpenAI with the real API: `make drift`.

Sends the same requests to both and compares the answers: status, content type, the header with the
request's id, the fields of the JSON and their types, the events of streams in their order, and the
strings that tell replies apart, such as `object`, `type` and the `code` of an error. Texts, numbers
and names are not compared.

DRIFT is what the offline OpenAI has and the real API has not, or has otherwise: projects are tested
against what is not so. What only the real API has is for your information: the service skips what
it does not know. Less than 3,000 tokens are used in all, which cost a fraction of a cent with a
small model.

Environment: OPENAI_API_KEY; without it, nothing is compared. OPENAI_BASE_URL and OPENAI_MODEL, if
it is not the API of OpenAI and the model that the template suggests.

Exit status: 0 without drift, or without a key; 1 with drift; 2 if the real API did not answer, or
refused the key.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .exchanges import Answer, Api, Exchange, NoAnswer, exchanges
from .shapes import Difference, differences

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"


@contextmanager
def offline_openai() -> Iterator[Api]:
    """The one of the template, which is plain Python."""
    command = [sys.executable, "-B", "-m", "dev.offline_openai", "--port", "0"]
    with subprocess.Popen(command, cwd=TEMPLATE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().rpartition("OPENAI_BASE_URL=")[2].strip()
            if not url:
                raise NoAnswer("The offline OpenAI does not start.")
            yield Api(url, "any", {})  # a proxy could not reach this machine
        finally:
            process.terminate()


def refused(answer: Answer, exchange: Exchange) -> bool:
    """Whether the answer is about who asks, or how often, instead of what."""
    is_about_key = answer.status in (401, 403) and exchange.key is None
    return is_about_key or answer.status == 429 or answer.status >= 500


def compared(
    real: Api, offline: Api, chosen: list[Exchange]
) -> Iterator[tuple[Exchange, list[Difference]]]:
    for exchange in chosen:
        answer = real.send(exchange)
        if refused(answer, exchange):
            request = f"the request for {exchange.name}"
            raise NoAnswer(f"The real API refused {request} with status {answer.status}.")
        if exchange.scripted:
            control = replace(exchange, path="/offline/script", body=[exchange.scripted])
            Api(offline.url.removesuffix("/v1"), "", {}).send(control)
        found = set(differences(answer, offline.send(exchange)))
        yield exchange, sorted(found, key=lambda one: (not one.is_drift, one.text))


def report(real: Api, offline: Api, chosen: list[Exchange]) -> int:
    """Print what differs; the number of exchanges with drift."""
    drifted = 0
    for exchange, found in compared(real, offline, chosen):
        print(f"{exchange.name}:" if found else f"{exchange.name}: same")
        for difference in found:
            print(f"  {'DRIFT' if difference.is_drift else 'info '}  {difference.text}")
        drifted += any(difference.is_drift for difference in found)
    return drifted


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    default = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["openai_model"]
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    url = os.environ.get("OPENAI_BASE_URL", "").strip() or "https://api.openai.com/v1"
    chosen = exchanges(os.environ.get("OPENAI_MODEL", "").strip() or default)
    if not key:
        print("Nothing is compared without OPENAI_API_KEY.")
        return 0
    try:
        with offline_openai() as offline:
            drifted = report(Api(url, key), offline, chosen)
    except NoAnswer as problem:
        print(f"Not compared. {problem}", file=sys.stderr)
        return 2
    print(f"\n{len(chosen)} requests: {drifted or 'none'} with drift.")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())

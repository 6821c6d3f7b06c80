"""Other people's tools can use the service's OpenAPI document, and the service keeps to it."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from .projects import ROOT, STYLES, bake, environment, run

pytestmark = pytest.mark.slow

# Prints the service's URL; then, for each line of input, OpenAI refuses one call for lack of quota.
SERVE = """
import sys
from dev.demo import serving
from dev.offline_openai import Scripted, running

with running() as offline, serving("chat_service", offline.url) as client:
    print(client.base_url, flush=True)
    for line in sys.stdin:
        offline.script(Scripted(status=429, type="insufficient_quota"))
        print("scripted", flush=True)
"""

# By the schema, any model may be asked for: 400 is the answer for those that are not offered.
SCHEMATHESIS = """
[checks]
positive_data_acceptance.expected-statuses = [200, 400]
"""

# The generated client gets a 503, replies, a stream, and what else is a problem.
PYTHON_CLIENT = """
import sys
from chat_service_client import Client
from chat_service_client.api.chat import chat, chat_stream
from chat_service_client.api.health import livez, readyz
from chat_service_client.models import ChatReply, ChatRequest, Message, MessageRole, Problem

client = Client(base_url=sys.argv[1])
request = ChatRequest(messages=[Message(role=MessageRole.USER, content="")])
problem = chat.sync_detailed(client=client, body=request)
assert problem.status_code == 503, problem
assert isinstance(problem.parsed, Problem), problem
assert problem.parsed.type_ == "urn:problem-type:upstream-quota-exhausted"
assert problem.parsed.request_id == problem.headers["x-request-id"]
assert isinstance(chat.sync(client=client, body=request), ChatReply)
assert "event: done" in chat_stream.sync(client=client, body=request)
assert livez.sync_detailed(client=client).status_code == 200
assert readyz.sync(client=client).ready is True

request.model = "of-someone-else"
refused = chat.sync_detailed(client=client, body=request)
assert (refused.status_code, refused.parsed.status) == (400, 400)
request.model = ""
invalid = chat_stream.sync(client=client, body=request)
assert invalid.errors[0].loc == ["body", "model"], invalid
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the tools that are written in Python."""
    group = f"{ROOT / 'pyproject.toml'}:openapi"
    return environment(tmp_path_factory.mktemp("tools"), "--group", group)


@contextmanager
def serving(project: Path, venv: Path) -> Iterator["subprocess.Popen[str]"]:
    """The process that runs SERVE, after it has printed the URL."""
    with subprocess.Popen(
        [venv / "python", "-c", SERVE],
        cwd=project,
        env=os.environ | {"PYTHONPATH": f"{project / 'src'}{os.pathsep}{project}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        yield service
        assert service.stdin
        service.stdin.close()


def printed_by(service: "subprocess.Popen[str]") -> str:
    """Its next line."""
    assert service.stdout
    return service.stdout.readline().strip()


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bake(template, tmp_path_factory.mktemp("documented"))


@pytest.fixture(scope="module")
def document(project: Path, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document that the service publishes, as a file."""
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    with serving(project, venv) as service:
        url = f"{printed_by(service)}/openapi.json"
        with urlopen(url) as response:  # noqa: S310 - the scheme is http
            path.write_bytes(response.read())
    return path


def statuses(har: Path) -> dict[tuple[str, str], set[int]]:
    """The statuses of all answers by method and path."""
    found = defaultdict(set)
    for entry in json.loads(har.read_text())["log"]["entries"]:
        request = entry["request"]
        found[request["method"], urlsplit(request["url"]).path].add(entry["response"]["status"])
    return found


@pytest.fixture(params=STYLES)
def styled_project(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Path:
    return bake(template, tmp_path, handler_style=request.param)


def test_answers_as_documented_whatever_schemathesis_sends(
    styled_project: Path, document: Path, venv: Path, tools: Path, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    with serving(styled_project, venv) as service:
        url = f"{printed_by(service)}/openapi.json"
        report = ("--report", "har", "--report-har-path", "report.har")
        bounded = ("--generation-deterministic", "--max-examples", "20")
        done = run(tools / "schemathesis", "run", url, *bounded, *report, cwd=tmp_path)

    assert done.returncode == 0
    answered = statuses(tmp_path / "report.har")
    for path, operations in json.loads(document.read_text())["paths"].items():
        for method, operation in operations.items():
            found = answered[method.upper(), path]
            # `default` documents every status: these have to be named.
            assert {str(status) for status in found} <= operation["responses"].keys()
            assert 200 in found
            assert 500 not in found
    assert {422, 400} <= answered["POST", "/v1/chat"]


def test_is_valid_openapi(document: Path, tools: Path) -> None:
    done = run(tools / "openapi-spec-validator", document, cwd=document.parent)
    assert done.returncode == 0


def test_openapi_python_client_generates_a_client_that_parses_a_problem(
    project: Path, document: Path, venv: Path, tools: Path, tmp_path: Path
) -> None:
    client = tmp_path / "client"
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"  # it formats what it generates, with ruff
    generate = ("generate", "--path", document, "--output-path", client, "--fail-on-warning")
    generated = run(tools / "openapi-python-client", *generate, cwd=tmp_path, PATH=path)
    assert generated.returncode == 0
    assert "warning" not in (generated.stdout + generated.stderr).lower()

    with serving(project, venv) as service:
        url = printed_by(service)
        assert service.stdin
        service.stdin.write("quota\n")
        service.stdin.flush()
        assert printed_by(service) == "scripted"
        asked = run(tools / "python", "-c", PYTHON_CLIENT, url, cwd=client)
    assert asked.returncode == 0


def test_openapi_typescript_gives_one_type_of_problem(document: Path, tmp_path: Path) -> None:
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier")
    run("npm", "install", *quiet, "openapi-typescript@7", cwd=tmp_path).check_returncode()
    command = tmp_path / "node_modules" / ".bin" / "openapi-typescript"
    done = run(command, document, "--output", "service.ts", cwd=tmp_path)
    assert done.returncode == 0
    assert "warn" not in (done.stdout + done.stderr).lower()

    types = (tmp_path / "service.ts").read_text()
    problems = re.findall(r'"application/problem\+json": (.+);', types)
    assert set(problems) == {'components["schemas"]["Problem"]'}
    assert types.count("        Problem: {") == 1
    for operation in ("chat", "chat_stream", "livez", "readyz"):
        assert f'operations["{operation}"]' in types
    (stream,) = re.findall(r'"text/event-stream": (.+);', types)
    assert 'components["schemas"]["ChatEvent"]' in stream

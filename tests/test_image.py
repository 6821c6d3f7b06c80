"""What is in the image, built from the unmodified Dockerfile."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .answers import AWKWARD
from .conftest import Bake
from .containers import PYTHON, STRAY, Containers
from .projects import run

pytestmark = pytest.mark.slow

IMAGE = "chat-service"
PREFIX = "org.opencontainers.image"
USER = 10001
# What the image's own Python sees, as the user that it runs as: the module is to be imported.
LOOK = """
import asyncio, importlib.metadata, importlib.util, json, os, sys, MODULE
names, writable = set(), []
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"dev", "proc", "sys"}
    names |= {*folders, *files}
    paths = [folder, *(os.path.join(folder, name) for name in files)]
    writable += [path for path in paths if os.access(path, os.W_OK)]
sources = [module.__file__ for module in (asyncio, json, MODULE)]
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "app": sorted(os.listdir("/app")),
    "unwanted": [name for name in sorted(names) if name in UNWANTED or name.startswith("pip-")],
    "writable": writable,
    "versions": {one.name: one.version for one in importlib.metadata.distributions()},
    "uncompiled": [path for path in sources
                   if not os.path.exists(importlib.util.cache_from_source(path))],
}))
"""
UNWANTED = [
    *("pip", "pip3", f"pip{PYTHON}", "ensurepip", "setuptools", "uv", "uvx", "uv.lock"),
    *(Path(name).name for name in STRAY),
    "offline_openai.py",
]


def inside(containers: Containers, image: str, module: str = "chat_service") -> dict[str, Any]:
    look = LOOK.replace("MODULE", module).replace("UNWANTED", repr(UNWANTED))
    found: dict[str, Any] = json.loads(containers.output("run", "--rm", image, *python(look)))
    return found


def python(code: str) -> tuple[str, ...]:
    return ("python", "-c", code)


def test_hadolint_finds_nothing(containers: Containers, shipped: Path) -> None:
    done = run(containers.commands / "hadolint", "--no-color", "Dockerfile", cwd=shipped)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_description_is_a_label_whatever_it_says(containers: Containers, baked: Bake) -> None:
    text = " ".join(AWKWARD)
    project = baked(project_description=text)
    dockerfile = (project / "Dockerfile").read_text(encoding="utf-8")
    (label,) = re.findall(r"^LABEL (?:.*\\\n)*.*\n", dockerfile, re.MULTILINE)
    (project / "Dockerfile").write_text(f"FROM scratch\n{label}", encoding="utf-8")
    containers.build(project, "labelled").check_returncode()

    (image,) = json.loads(containers.output("image", "inspect", "labelled"))
    assert image["Labels"][f"{PREFIX}.description"] == text


def test_holds_the_service_and_nothing_else(containers: Containers, shipped: Path) -> None:
    assert not (shipped / "uv.lock").exists()
    found = inside(containers, IMAGE)

    assert found["app"] == [".venv"]
    assert found["ids"] == [USER, USER]
    assert found["uncompiled"] == []
    assert found["unwanted"] == []
    assert "chat-service" in found["versions"]
    assert {"hatchling", "pytest", "mypy", "aiohttp"} & found["versions"].keys() == set()
    lock_of_uv = "/app/.venv/.lock"  # empty; uv lets everybody write to it
    assert {*found["writable"]} <= {lock_of_uv, "/run/lock", "/tmp", "/var/tmp"}  # noqa: S108


@pytest.mark.usefixtures("shipped")
def test_configures_what_orchestrators_look_at(containers: Containers) -> None:
    (image,) = json.loads(containers.output("image", "inspect", IMAGE))
    config = image["Config"]

    assert config["User"] == f"{USER}:{USER}"  # a number, for runAsNonRoot
    assert config["Cmd"] == ["python", "-m", "chat_service"]
    assert not config.get("Entrypoint")
    assert [*config["ExposedPorts"]] == ["8000/tcp"]
    assert config.get("StopSignal", "SIGTERM") in ("", "SIGTERM", "15")
    assert {"HOST=0.0.0.0", "PORT=8000"} <= {*config["Env"]}
    assert not [one for one in config["Env"] if re.match("SSL_|UV_|OPENAI_", one)]
    assert image["Labels"][f"{PREFIX}.title"] == "chat-service"
    assert image["Labels"][f"{PREFIX}.licenses"] == "MIT"


@pytest.mark.usefixtures("shipped")
def test_the_offline_image_holds_only_what_it_needs(containers: Containers) -> None:
    found = inside(containers, "chat-service-offline-openai", module="aiohttp")

    assert found["app"] == [".venv", "dev"]
    assert found["ids"] == [USER, USER]
    assert found["unwanted"] == ["offline_openai.py"]
    assert {"aiohttp", "pydantic"} <= found["versions"].keys()
    assert {"chat-service", "openai", "pytest"} & found["versions"].keys() == set()

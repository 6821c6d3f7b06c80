"""`make replicas` in small: that limits hold and nothing is lost, not how fast it was."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from .projects import run
from .test_benchmarks import tables

pytestmark = pytest.mark.slow

APT_TIMEOUT = "120"  # seconds


@pytest.fixture(scope="module")
def haproxy() -> None:
    """On this machine. Debian has it where only root looks."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    if shutil.which("haproxy", path=path):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        pytest.skip("needs HAProxy: apt-get install haproxy")
    for command in ("update", "install --yes --no-install-recommends haproxy"):
        apt = ("timeout", APT_TIMEOUT, "apt-get", "--quiet", *command.split())
        if run(*apt, cwd=Path("/"), DEBIAN_FRONTEND="noninteractive").returncode:
            pytest.skip(f"needs HAProxy: apt-get {command} failed")


@pytest.fixture(scope="module")
def found(
    template: Path, venv: Path, tmp_path_factory: pytest.TempPathFactory, haproxy: None
) -> dict[str, list[dict[str, str]]]:
    """The tables of the report, of a run that found no fault."""
    scratch = tmp_path_factory.mktemp("replicas")
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.replicas", "--quick"]
    command += ["--only", "limits,restarts,outage", "--scratch", scratch]
    done = run(*command, "--python", venv / "python", cwd=template)

    assert done.returncode == 0, done.stderr
    assert "Failed: " not in done.stderr
    return tables((scratch / "replicas.md").read_text())


def test_limits_hold_across_replicas(found: dict[str, list[dict[str, str]]]) -> None:
    """Each client gets exactly its limit, served by both replicas."""
    *requests, tokens = found["Limits hold across replicas"]

    assert [row["client"] for row in requests] == ["web", "batch"]
    for row in requests:
        assert row["admitted"] == row["limit"]
        assert int(row["429"]) == int(row["sent"]) - int(row["limit"]) > 0
        assert min(int(served) for served in row["by replica"].split(" + ")) > 0
    assert 0 < int(tokens["tokens spent"]) <= int(tokens["limit"])
    assert int(tokens["reserved at most"]) <= int(tokens["limit"])
    assert int(tokens["429"]) > 0


def test_restarts_lose_and_repeat_nothing(found: dict[str, list[dict[str, str]]]) -> None:
    """After a kill -9, only what was in flight on the replica is lost."""
    rows = {row["case"]: row for row in found["Restarts under load"]}

    crash = rows.pop("kill -9")
    assert int(crash["lost"]) > 0
    assert (crash["refused"], crash["lost, not in flight"], crash["billed twice"]) == (
        "0",
        "0",
        "0",
    )
    assert list(rows) == [
        "drained, then SIGTERM",
        "connections balanced: SIGTERM, not drained",
    ]
    for row in rows.values():
        assert row["restarted"] == "2"
        assert row["complete"] == row["requests"] != "0"
        assert (row["billed twice"], row["billed, not delivered"]) == ("0", "0")


def test_service_continues_without_redis(found: dict[str, list[dict[str, str]]]) -> None:
    """Each replica counts for itself then, and none refuses clients within their limit."""
    rows = {row["Redis"]: row for row in found["Redis outage"]}

    admitted = {phase: int(row["admitted"]) for phase, row in rows.items()}
    quota = admitted["Redis answers"]
    assert quota > 0
    assert admitted["killed"] == 2 * quota  # there are two replicas
    assert admitted["restarted, empty"] <= quota
    assert admitted["frozen"] == admitted["resumed"] == 0  # all is used up everywhere
    assert {row["others"] for row in rows.values()} == {"0"}

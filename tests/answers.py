"""Answers as people, and people with bad intentions, give them."""

GOOD = {
    "project_name": "Chat Service",
    "project_slug": "chat-service",
    "project_description": "A service.",
    "author_name": "Ann",
    "author_email": "ann@example.com",
    "handler_style": "sync",
    "openai_model": "gpt-5.4-mini",
    "python_version": "3.13",
    "license": "MIT",
    "deployment": "none",
    "ci": "gitlab",
    "__package_name": "chat_service",
}
LINES = ("project_name", "project_description", "author_name")  # any text in one line

# Texts that have to come out as they went in.
AWKWARD = [
    """He said "it's" 'fine'""",
    "Zoë Müller 日本語 🙂 ﬁ",
    r"C:\new\table \" \u0041 \\",
    "\"\"\" + ''' + \"\"\" + '''",
    "{{ 7*7 }} {% now 'utc' %} {# gone #} {{ cookiecutter.nothing }}",
    "\"; import pathlib; pathlib.Path('pwned').touch() #",
    "$(touch pwned) `touch pwned` ${HOME} %s %(x)s",
    "# [tool.ruff] = 1",
    "<b>&amp;</b>",
]
# Texts that Jinja would change, refuse or stumble over.
TEMPLATES = [
    "{{ cookiecutter.license }}",
    "{% bad",
    "{{",
    "{{ 1 / 0 }}",
    "{# gone #}x",
    "{% raw %}",
    "{{cookiecutter.project_slug}}",  # the folder's name in the template
    "${{ github.token }}",
]
# Texts that Markdown would show in another way, or not at all.
MARKDOWN = [
    *("<!-- the rest of the page", "<script>", "<https://example.com>", "&copy; &#35; &", "x\\"),
    *("[x](y)", "![x](y)", "[x]: y", "[^1]", "`x`", "```", "~~~", "~~x~~", "*x*", "__x__", "a_b_c"),
    *("# x", "#", "x #", "C# x ##", "- x", "+ x", "* x", "> x", "1. x", "99) x", "7.", "1.5 x"),
    *(
        "---",
        "***",
        "===",
        "| a | b |",
        "\\*x\\*",
        "\\1",
        "a\\\\",
        "$x$",
        "https://example.com/a_b",
    ),
]
# Letters that programs do not expect.
LETTERS = [
    "ש" * 300,
    "Ann" * 100,
    "x" * 512,
    "🙂" * 300,
    "e\N{COMBINING ACUTE ACCENT}" * 100,
    "\N{COMBINING ACUTE ACCENT}x",
    "می\N{ZERO WIDTH NON-JOINER}خواهم",
    "👩\N{ZERO WIDTH JOINER}🚀",
    "مرحبا \N{RIGHT-TO-LEFT MARK}bot",
    "a\N{NO-BREAK SPACE}b",
    "a\N{IDEOGRAPHIC SPACE}b",
    "a  b",
    "\ue000 \U0010fffd",  # private use
    "\u0378 \U000e0fff",  # not assigned
    "\ufffe \uffff",  # no characters
]
# Names that a header of a mail, and so the metadata of a wheel, would take for more than a name.
HEADERS = [
    *("O'Brien, Zoë", "Ann <ann@example.org>", "ann@example.org", "Team (core); all: them", ","),
    *("Summary: x", "=?utf-8?q?x?=", "A. B. C.", '"', "'", "From Ann", "--", "-x", "null", "true"),
]
LINES_TAKEN = [*AWKWARD, *TEMPLATES, *MARKDOWN, *LETTERS, *HEADERS]

EMPTY = "is empty: write at least one word."
BLANK = "begins or ends with a blank: leave it out."
CONTROL = "holds a line break or another control character: write it on one line."
LINES_REFUSED = {
    "": EMPTY,
    "  ": EMPTY,
    "\N{NO-BREAK SPACE}": EMPTY,
    "\N{ZERO WIDTH JOINER}": EMPTY,
    "\N{COMBINING ACUTE ACCENT}": EMPTY,
    "    x": BLANK,
    "x ": BLANK,
    "x\N{NO-BREAK SPACE}": BLANK,
    "\N{IDEOGRAPHIC SPACE}x": BLANK,
    **{
        f"a{character}b": CONTROL
        for character in ("\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\ud800")
    },
    **{
        f"a{character}b": f"holds the invisible character U+{ord(character):04X}: leave it out."
        for character in "\u200b\u202a\u202b\u202d\u202e\u2060\u2066\u2067\u2069\ufeff"
    },
    "x" * 513: "has 513 characters: shorten it to at most 512.",
    "x" * 3000: "has 3000 characters: shorten it to at most 512.",
}

NO_SLUG = (
    "must begin with a letter and be lower-case words and digits joined by single hyphens,"
    " such as chat-service."
)
SLUGS_TAKEN = [
    *("a", "zz-9", "a1-2b", "x" * 40, "my-openai", "chat-service"),
    *("match", "type", "case", "print", "list", "self", "none", "x-ray", "xn-a", "build"),
    *("app", "api", "server", "upstream", "settings", "errors", "process", "keys", "conftest"),
]
SLUGS_REFUSED = {
    **dict.fromkeys(["", "A", "1a", "a_b", "a--b", "-a", "a-", "a b", "a.b", "xn--a"], NO_SLUG),
    **dict.fromkeys(["../a", "a/b", "a\\b", "/", "~", "C:", "ä", "a\n", "a;b", "a\ud800"], NO_SLUG),
    **dict.fromkeys(["{{ 7*7 }}", "$(touch pwned)", "`touch pwned`", "a'b", 'a"b'], NO_SLUG),
    "x" * 41: "has 41 characters: shorten it to at most 40.",
    "x" * 3000: "has 3000 characters: shorten it to at most 40.",
    **{
        slug: f"{slug!a} means something else in YAML: choose another, such as my-{slug}."
        for slug in ("null", "true", "off", "n")
    },
    **{
        slug: f"{slug!a} would hide {what}: choose another, such as my-{slug}."
        for slug, what in [
            ("class", "a keyword of Python"),
            ("json", "a module of Python's standard library"),
            ("test", "a module of Python's standard library"),
            ("sitecustomize", "a module that Python imports when it starts"),
            ("openai", "a package that the service needs"),
            ("pydantic-settings", "a package that the service needs"),
            ("python-dotenv", "a package that the service needs"),
            ("httpx", "a package that comes with a server or that the service's dependencies use"),
            ("tests", "a folder of the project"),
            ("offline-openai", "a service in compose.yaml"),
            ("com1", "a device of Windows"),
        ]
    },
    **{
        slug: f"{slug!a} is a folder that ruff or mypy skips: choose another, such as my-{slug}."
        for slug in ("dist", "node-modules")
    },
}

NO_EMAIL = "is no e-mail address: write one such as you@example.com."
EMAILS_TAKEN = [
    *("o'brien+x@mail.example.org", "me@münchen.de", "a.b@c-d.io", "me@xn--mnchen-3ya.de"),
    *("a" * 64 + "@example.com", "-x@example.com", "!#$%&'*+/=?^_~@例え.jp"),
]
EMAILS_REFUSED = {
    **dict.fromkeys(
        ["", " ", "ann", "@x.org", "ann@", "ann@x", "ann@.org", "<ann@x.org>"], NO_EMAIL
    ),
    **dict.fromkeys(
        ["ann@bob@x.org", "a b@x.org", 'a"@x.org', '"a b"@x.org', "a\\@x.org"], NO_EMAIL
    ),
    **dict.fromkeys(
        ["a..b@x.org", "ann@x.org\n", "ü@x.org", "a@[127.0.0.1]", "a@127.0.0.1"], NO_EMAIL
    ),
    **dict.fromkeys(["$(touch pwned)@x.org", "{{ 7*7 }}@x.org", "a@x.org\u202e"], NO_EMAIL),
    **dict.fromkeys(["a" * 300 + "@example.com", "a" * 3000 + "@example.com"], NO_EMAIL),
}

NO_MODEL = "may hold only letters, digits and any of . _ : / @ + - and must have one."
MODELS_TAKEN = [
    *(
        "o4-mini",
        "ft:gpt-5.4-mini:acme::x1",
        "org/model@v1.0",
        "A_b",
        "true",
        "null",
        "1e3",
        "0x1f",
    ),
    *("--", "-x", ".", "..", "@x", "./a", "1:30", "2026-01-01", "+1", "http://x/y", "x" * 300),
]
MODELS_REFUSED = {
    **dict.fromkeys(
        ["", " ", "a b", "a\n", '"a"', "'a'", "a$b", "a#b", "a\\b", "~", "日"], NO_MODEL
    ),
    **dict.fromkeys(
        ["{{ 7 }}", "$(touch pwned)", "`touch pwned`", "a=b", "a\u202e", "%s"], NO_MODEL
    ),
    "x" * 3000: "has 3000 characters: shorten it to at most 512.",
}

# What becomes of an answer: the sentence that refuses it, but for its beginning; or nothing.
HOSTILE: list[tuple[str, str, str | None]] = [
    *((name, text, None) for name in LINES for text in LINES_TAKEN),
    *((name, *refused) for name in LINES for refused in LINES_REFUSED.items()),
    *(("project_slug", slug, None) for slug in SLUGS_TAKEN),
    *(("project_slug", *refused) for refused in SLUGS_REFUSED.items()),
    *(("author_email", email, None) for email in EMAILS_TAKEN),
    *(("author_email", *refused) for refused in EMAILS_REFUSED.items()),
    *(("openai_model", model, None) for model in MODELS_TAKEN),
    *(("openai_model", *refused) for refused in MODELS_REFUSED.items()),
]

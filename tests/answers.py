"""Answers as people, and people with bad intentions, give them."""

GOOD = {
    "project_name": "Chat Service",
    "project_slug": "chat-service",
    "project_description": "A service.",
    "author_name": "Ann",
    "author_email": "ann@example.com",
    "handler_style": "sync",
    "openai_model": "gpt-5.4-mini",
    "license": "MIT",
    "deployment": "none",
    "ci": "gitlab",
    "__package_name": "chat_service",
}

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

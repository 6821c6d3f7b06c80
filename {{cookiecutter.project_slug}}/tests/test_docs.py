"""The documentation names what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def text(*path: str) -> str:
    return ROOT.joinpath(*path).read_text("utf-8")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    content = page.read_text("utf-8")
    if page.name == "README.md":  # its title and description may be any text
        _, _, content = content.split("\n\n", 2)
    for target in re.findall(r"\]\(([^)]+)\)", content):
        path, _, anchor = target.partition("#")
        if ":" not in path:  # no URL
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_every_alert_is_explained() -> None:
    explained = re.findall(r"^\| ([A-Z]\w+) \|", text("docs", "operations.md"), re.MULTILINE)
    alerts = text("deploy", "observability", "alerts.yaml")
    assert explained == re.findall(r"- alert: (\w+)", alerts)


def test_panels_are_called_by_their_names() -> None:
    named = set(re.findall(r'"([A-Z][^"]+)"', text("docs", "operations.md")))
    assert named
    assert named <= set(
        re.findall(r'"title": "(.+)"', text("deploy", "observability", "dashboard.json"))
    )

"""What pages and the documentation are in a real browser: test_browser.py runs this."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

# Chromium's sandbox needs a user other than root; the others keep it from calling its maker.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]

# What a script of the page sees of an answer: status, headers, body by the chunks that it read.
FETCH = """
async ({url, headers, body}) => {
    try {
        const response = await fetch(url, {method: "POST", headers, body});
        const reader = response.body.getReader();
        const decoder = new TextDecoder();
        const chunks = [];
        for (;;) {
            const {value, done} = await reader.read();
            if (done) break;
            chunks.push(decoder.decode(value));
        }
        return {status: response.status, headers: Object.fromEntries(response.headers), chunks};
    } catch (error) {
        return {error: String(error)};
    }
}
"""


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        try:
            yield opened
        finally:
            opened.close()


def fetch(page: Page, url: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page at the URL sees of the answers to its requests, one after another."""
    page.goto(url)
    return [page.evaluate(FETCH, request) for request in requests]


def read_docs(page: Page, url: str, assets: Path, key: str, screenshot: str) -> dict[str, Any]:
    """Use Swagger UI, whose files come from a folder instead of its CDN, with a key."""

    def answer(route: Route) -> None:
        if "swagger-ui-dist" in route.request.url:
            route.fulfill(path=assets / Path(route.request.url).name)
        else:  # the icon
            route.abort()

    page.route(lambda requested: not requested.startswith(url.removesuffix("/docs")), answer)
    page.goto(url)
    page.locator("button.authorize").first.click()
    schemes = page.locator(".auth-container h4").all_inner_texts()
    page.locator("input[type=text]").first.fill(key)
    page.get_by_role("button", name="Apply credentials").first.click()
    page.screenshot(path=screenshot)
    page.get_by_role("button", name="Close").last.click()
    page.get_by_text("/v1/chat", exact=True).click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    status = page.locator(".live-responses-table tbody .response-col_status").first
    return {"schemes": schemes, "status": status.inner_text()}


def main() -> None:
    asked = json.loads(sys.argv[1])
    with browser(asked["executable"]) as opened:
        seen = [fetch(opened.new_page(), *page) for page in asked["pages"]]
        docs = read_docs(
            opened.new_page(),
            asked["docs"],
            Path(asked["assets"]),
            asked["key"],
            asked["screenshot"],
        )
    print(json.dumps({"pages": seen, "docs": docs}))  # noqa: T201 - for the test


if __name__ == "__main__":
    main()

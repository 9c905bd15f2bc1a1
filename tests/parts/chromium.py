"""A real browser: Debian's Chromium, headless, driven by playwright; it reaches loopback and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from tests.parts.needs import program

FLAGS = (
    "--no-sandbox",  # containers run it as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",  # /dev/shm is tiny in containers
    # A page that asks for a font from afar must not wait for a network that is not there.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


@contextmanager
def chromium(*, ignore_https_errors: bool = False) -> Iterator[Page]:
    """Open an empty page of a fresh profile; the browser ends with the block.

    Playwright's loop runs in this thread for the time of the block: an `asyncio.run` inside it has to go to
    a thread of its own. `ignore_https_errors` is for a test's own certificate authority, which Chromium
    cannot be told of without touching the user's certificate store.
    """
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser.new_context(ignore_https_errors=ignore_https_errors).new_page()
        finally:
            browser.close()

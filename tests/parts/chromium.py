"""A real browser: Debian's headless Chromium, driven by playwright. It reaches only loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from tests.parts.requirements import find_program

FLAGS = (
    "--no-sandbox",  # containers run it as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",  # /dev/shm is tiny in containers
    # Without network access, a page must not wait for a remote font.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


@contextmanager
def open_chromium(*, ignore_https_errors: bool = False) -> Iterator[Page]:
    """Open an empty page in a new profile; close the browser when the block ends.

    Playwright's event loop runs in this thread until the block ends: call `asyncio.run` in another thread.
    If the test has its own certificate authority, set `ignore_https_errors`: Chromium trusts only
    authorities in the user's certificate store.
    """
    path = find_program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser.new_context(ignore_https_errors=ignore_https_errors).new_page()
        finally:
            browser.close()

"""Render the page of the loopback listener. All text is escaped; the page loads and stores nothing."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from html import escape

# The style of the consent page in `demo/pages.py`.
_STYLE = (
    ":root{color-scheme:light dark;--ink:#1c1d21;--soft:#5b5e68;--line:#d9dbe1;--page:#f3f4f7;--card:#fff}"
    "@media (prefers-color-scheme:dark){:root{"
    "--ink:#eceef3;--soft:#a3a8b5;--line:#383c47;--page:#14161a;--card:#1e2127}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;min-height:100dvh;display:grid;place-items:center;padding:1rem;"
    "background:var(--page);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}"
    "main{width:100%;max-width:27rem;background:var(--card);border:1px solid var(--line);"
    "border-radius:14px;padding:1.5rem}"
    "h1{font-size:1.3rem;line-height:1.3;margin:0 0 1rem;overflow-wrap:anywhere}"
    "p{margin:0;overflow-wrap:anywhere}"
    "dl{margin:0 0 1.25rem}dt{color:var(--soft);font-size:.85rem;margin-top:.75rem}"
    "dd{margin:0;overflow-wrap:anywhere}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", _CONTENT_SECURITY_POLICY),
    # The address of the page contains the code.
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class Page:
    """The page after a redirect. `ok` is True if the login is complete. The texts are plain, not HTML.

    `rows` are labels and values, such as the server and the account.
    """

    ok: bool
    title: str
    text: str
    rows: tuple[tuple[str, str], ...] = ()


def render_page(page: Page) -> bytes:
    """Render a page as HTML in UTF-8."""
    title, text = escape(page.title), escape(page.text)
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in page.rows)
    table = f"<dl>{rows}</dl>" if rows else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1>{table}<p>{text}</p></main></body></html>\n"
    ).encode()

"""What a person sees at the demo's authorization server: the consent page, and the page for errors.

Self-contained HTML without scripts, for phones and desktops, light and dark. Everything that came from
outside is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from urllib.parse import urlsplit

_STYLE = """
:root{color-scheme:light dark;
--ink:#1c1d21;--soft:#5b5e68;--line:#d9dbe1;--page:#f3f4f7;--card:#fff;--go:#1f5fd6}
@media (prefers-color-scheme:dark){:root{
--ink:#eceef3;--soft:#a3a8b5;--line:#383c47;--page:#14161a;--card:#1e2127;--go:#2f6fe4}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;min-height:100dvh;display:grid;place-items:center;padding:1rem;
background:var(--page);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
main{width:100%;max-width:27rem;
background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1.5rem}
h1{font-size:1.3rem;line-height:1.3;margin:0 0 1rem;overflow-wrap:anywhere}
p{margin:0 0 1rem}
main>:last-child{margin-bottom:0}
.soft{color:var(--soft);font-size:.9rem}
dl{margin:0 0 1.25rem}
dt{color:var(--soft);font-size:.85rem;margin-top:.75rem}
dd{margin:0;overflow-wrap:anywhere}
ul{margin:0;padding-left:1.2rem}
form{display:grid;grid-template-columns:1fr 1fr;gap:.75rem;margin-bottom:1rem}
button{font:inherit;font-weight:600;min-height:3rem;border-radius:10px;
border:1px solid var(--line);cursor:pointer;background:transparent;color:inherit}
button.go{background:var(--go);border-color:var(--go);color:#fff}
button:focus-visible{outline:3px solid var(--go);outline-offset:3px}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def consent_page(
    *,
    client: str,
    account: str,
    scope: Iterable[str],
    resource: str | None,
    redirect_uri: str,
    request_id: str,
    csrf_token: str,
) -> str:
    """Write the page that asks: who wants what, where the answer goes; Approve and Deny."""
    scopes = "".join(f"<li><code>{escape(name)}</code></li>" for name in sorted(scope)) or "<li>nothing</li>"
    return _page(
        "Connect an application",
        f"""<h1>{escape(client)} wants to act for you</h1>
<dl>
<dt>Signed in as</dt><dd>{escape(account)}</dd>
<dt>Server</dt><dd>{escape(resource or "any server of this one")}</dd>
<dt>It may use</dt><dd><ul>{scopes}</ul></dd>
<dt>Your browser then goes to</dt><dd>{escape(_origin(redirect_uri))}</dd>
</dl>
<form method="post" action="/consent">
<input type="hidden" name="request" value="{escape(request_id)}">
<input type="hidden" name="csrf" value="{escape(csrf_token)}">
<button class="go" name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</form>
<p class="soft">Approve only if you asked for this yourself just now.
This is a demo on this machine: nothing real is granted.</p>""",
    )


def error_page(text: str) -> str:
    """Write the page for a request that cannot be answered with a redirect."""
    return _page(
        "This login cannot go on",
        f"""<h1>This login cannot go on</h1>
<p>{escape(text)}</p>
<p class="soft">Nothing was granted. Go back to where you began, and begin again there.</p>""",
    )


def page_headers(redirect_uri: str | None = None) -> Mapping[str, str]:
    """Return the headers of a page; browsers apply `form-action` to the redirect too, so it is named."""
    target = "'none'" if redirect_uri is None else f"'self' {_source(redirect_uri)}"
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {target}; "
            "frame-ancestors 'none'; base-uri 'none'"
        ),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def _page(title: str, main: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{main}
</main>
</body>
</html>
"""


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _source(uri: str) -> str:
    # A host-source of CSP knows no IPv6 literal.
    return "http:" if "[" in urlsplit(uri).netloc else _origin(uri)

"""Render the pages of the demo's authorization server: consent, user code, errors, result.

The pages are self-contained HTML without scripts, for phones and desktops, light and dark. All text from
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
input[type=text]{font:inherit;min-height:3rem;min-width:0;border-radius:10px;padding:0 .75rem;
border:1px solid var(--line);background:transparent;color:inherit;text-transform:uppercase}
button{font:inherit;font-weight:600;min-height:3rem;border-radius:10px;
border:1px solid var(--line);cursor:pointer;background:transparent;color:inherit}
button.go{background:var(--go);border-color:var(--go);color:#fff}
:focus-visible{outline:3px solid var(--go);outline-offset:3px}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def consent_page(
    *,
    client: str,
    account: str,
    scope: Iterable[str],
    resource: str | None,
    request_id: str,
    csrf_token: str,
    redirect_uri: str | None = None,
    user_code: str | None = None,
) -> str:
    """Render the consent page, with Approve and Deny.

    Pass `redirect_uri` for a browser login, or `user_code` for a device login.
    """
    if redirect_uri is not None:
        action, destination_label, destination = (
            "/consent",
            "Your browser then goes to",
            _origin(redirect_uri),
        )
    else:
        action, destination_label, destination = "/device", "Your device must show this code", user_code or ""
    scopes = "".join(f"<li><code>{escape(name)}</code></li>" for name in sorted(scope)) or "<li>nothing</li>"
    return _page(
        "Connect an application",
        f"""<h1>{escape(client)} wants to act for you</h1>
<dl>
<dt>Signed in as</dt><dd>{escape(account)}</dd>
<dt>Server</dt><dd>{escape(resource or "every server that accepts tokens from here")}</dd>
<dt>It may use</dt><dd><ul>{scopes}</ul></dd>
<dt>{destination_label}</dt><dd>{escape(destination)}</dd>
</dl>
<form method="post" action="{action}">
<input type="hidden" name="request" value="{escape(request_id)}">
<input type="hidden" name="csrf" value="{escape(csrf_token)}">
<button class="go" name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</form>
<p class="soft">Approve only if you started this login yourself just now.
This is a demo on this machine: you grant no real access.</p>""",
    )


def user_code_page(error: str = "") -> str:
    """Render the page on which the user enters a user code (RFC 8628 section 3.3)."""
    return _page(
        "Connect a device",
        f"""<h1>Enter the code that your device shows</h1>
{f"<p>{escape(error)}</p>" if error else ""}
<form method="get" action="/device">
<input type="text" name="user_code" aria-label="Code" autocomplete="off" autocapitalize="characters"
spellcheck="false" required autofocus>
<button class="go">Continue</button>
</form>
<p class="soft">Enter only a code from your own device, and never a code that another person sent
you.</p>""",
    )


def decided_page(text: str) -> str:
    """Render the page after the user's decision."""
    return _page(
        "Done",
        f"""<h1>{escape(text)}</h1>
<p>You can close this page and go back to your device.</p>""",
    )


def error_page(text: str) -> str:
    """Render the page for an error that cannot be sent with a redirect."""
    return _page(
        "This login cannot continue",
        f"""<h1>This login cannot continue</h1>
<p>{escape(text)}</p>
<p class="soft">No access was granted. Go back to the application and start again.</p>""",
    )


def page_headers(redirect_uri: str | None = None, *, has_form: bool = False) -> Mapping[str, str]:
    """Return the headers of a page. Browsers also apply `form-action` to the redirect, so allow it."""
    target = "'self'" if has_form else "'none'"
    if redirect_uri is not None:
        target = f"'self' {_csp_source(redirect_uri)}"
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


def _csp_source(uri: str) -> str:
    # A host-source in CSP cannot be an IPv6 literal.
    return "http:" if "[" in urlsplit(uri).netloc else _origin(uri)

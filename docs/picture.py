"""Draw login.svg from the output of `hermes-mcp-auth login`. Run: python docs/picture.py."""

from __future__ import annotations

import io
import os
import re
import time
from html import escape
from pathlib import Path

from hermes_mcp_auth_remote.errors import PasteRefused
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.terminal.screen import PlainScreen
from hermes_mcp_auth_remote.terminal.text import connection_summary
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret

SVG_PATH = Path(__file__).with_name("login.svg")
COLUMNS = 80
NOW = 1_795_536_000.0  # 2026-11-24 16:00 UTC
CHAR_WIDTH, LINE_HEIGHT, MODULE_SIZE, MARGIN = 8.4, 18, 4, 20
ISSUER = "https://login.notes.example"
URL = f"{ISSUER}/authorize?client_id=hermes&request_uri=urn:example:6esc_11ACC5bwc014ltc14eY22c"


def render_screen() -> str:
    """Return the terminal's text for a login with a wrong paste and then the right one."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    request = AuthorizationRequest(
        url=URL,
        state=Secret("-"),
        code_verifier=Secret("-"),
        redirect_uri="http://127.0.0.1:52117/callback",
        client=Client("hermes"),
        issuer=ISSUER,
        is_iss_required=True,
        token_endpoint=f"{ISSUER}/token",
        authorization_endpoint=f"{ISSUER}/authorize",
        resource="https://mcp.notes.example/mcp",
        scope=frozenset({"notes:read", "notes:write", "offline_access"}),
    )
    login = Login(
        id="-" * 22,
        key=CredentialKey("notes"),
        server_url="https://mcp.notes.example/mcp",
        request=request,
        authorization_server=AuthorizationServer(ISSUER, f"{ISSUER}/authorize", f"{ISSUER}/token"),
        origin=Origin("terminal"),
        started_at=NOW,
        expires_at=NOW + 600,
    )
    connection = Connection(
        login.key, login.server_url, ISSUER, "ada@example.com", request.scope, NOW + 3720, can_refresh=True
    )
    output = io.BytesIO()
    stream = io.TextIOWrapper(output, "utf-8")
    environ = {"SSH_CONNECTION": "198.51.100.7 50000 203.0.113.9 22", "LOGNAME": "ada"}
    screen = PlainScreen(stream, COLUMNS, 0, lambda: NOW, environ=environ)
    print("$ hermes-mcp-auth login notes\n", file=stream)
    screen.show(login, browser_opened=False, port=52117)
    print("Paste the address here: [61 characters]", file=stream)
    screen.show_refusal(PasteRefused("That address has no code: it is not the one your browser ended on."))
    screen.show_countdown(login, on_new_line=True)
    print("Paste the address here: [312 characters]", file=stream)
    print(connection_summary(connection, NOW + 120, COLUMNS), file=stream)
    stream.flush()
    return re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue().decode())


def draw(text: str) -> str:
    """Draw a terminal's text as SVG, and the half blocks of a QR code as squares."""
    y, parts = float(MARGIN), list[str]()
    for line in text.splitlines():
        if line.strip() and not line.strip(" ▀▄█"):
            parts.extend(_draw_modules(line, y))
            y += 2 * MODULE_SIZE
            continue
        for start in range(0, max(len(line), 1), COLUMNS):
            y += LINE_HEIGHT
            escaped = escape(line[start : start + COLUMNS])
            parts.append(f'<text x="{MARGIN}" y="{y:g}" xml:space="preserve">{escaped}</text>')
    width, height = COLUMNS * CHAR_WIDTH + 2 * MARGIN, y + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
        "<title>A login in a terminal: the address and its QR code, a wrong paste, the right one.</title>"
        "<style>rect{shape-rendering:crispEdges}"
        "text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#d8dee9}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#1e222a"/>{"".join(parts)}</svg>\n'
    )


def _draw_modules(line: str, y: float) -> list[str]:
    size = f'width="{len(line) * MODULE_SIZE}" height="{2 * MODULE_SIZE}"'
    light = f'<rect x="{MARGIN}" y="{y:g}" {size} fill="#fff"/>'
    parts = [light]
    for column, character in enumerate(line):
        x = MARGIN + column * MODULE_SIZE
        top, height = {"█": (0, 2), "▀": (0, 1), "▄": (1, 1)}.get(character, (0, 0))
        if height:
            parts.append(
                f'<rect x="{x}" y="{y + top * MODULE_SIZE:g}" '
                f'width="{MODULE_SIZE}" height="{height * MODULE_SIZE}"/>'
            )
    return parts


if __name__ == "__main__":
    SVG_PATH.write_text(draw(render_screen()), "utf-8")

"""A HERMES_HOME with one server, "bench", that somebody has logged in to."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.server import TOKEN
from hermes_mcp_auth_remote.hermes_home import config_identity
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import authorization_server_from_document
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Secret

SERVER_NAME = "bench"
PYTHON = sys.executable
# Beside the interpreter, not the interpreter's own place: that may be a link out of the environment.
COMMAND = str(Path(sys.executable).parent / "hermes-mcp-auth")
MCP1_PYTHON = Path(__file__).resolve().parents[1] / ".venvs" / "hermes" / "bin" / "python"
"""The environment with the MCP SDK 1.x, which `make test` sets up; its figures are left out without it."""

FASTMCP_PYTHON = Path(__file__).resolve().parents[1] / ".venvs" / "bench" / "bin" / "python"
"""The environment with FastMCP, which `make bench` sets up; its figures are left out without it."""

REDIRECT_URI = "http://127.0.0.1:51234/callback"
_ISSUER = "https://as.example"


@contextmanager
def logged_in_home(url: str = "http://127.0.0.1:9/mcp") -> Generator[Path]:
    """Give a HERMES_HOME with a login at `url` that is good for an hour, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
        place = Path(folder)
        servers = {"mcp_servers": {SERVER_NAME: {"url": url, "auth": "oauth"}}}
        # JSON is YAML.
        (place / "config.yaml").write_text(json.dumps(servers), encoding="utf-8")
        # A login as of now: with the identity of the files that name this address.
        FileStore(place).save_login(CredentialKey(SERVER_NAME), _credentials(url, config_identity(place)))
        (place / "sdk.json").write_text(json.dumps(sdk_tokens()), encoding="utf-8")
        yield place


def environ_for(home: Path) -> dict[str, str]:
    """Return the environment of a process that lives in a HERMES_HOME, without the caller's proxies."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "HERMES_HOME": str(home), "PYTHONDONTWRITEBYTECODE": ""}


def tokens() -> Tokens:
    """Return tokens that are good for an hour."""
    now = time.time()
    return Tokens(
        access_token=Secret(TOKEN),
        refresh_token=Secret("a-refresh-token"),
        scope=frozenset({"mcp:tools"}),
        expires_at=now + 3600,
        obtained_at=now,
    )


def sdk_tokens() -> dict[str, object]:
    """Return the same tokens as the MCP SDK keeps them."""
    return {
        "access_token": TOKEN,
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "mcp:tools",
        "refresh_token": "a-refresh-token",
    }


def _credentials(url: str, config_files: str) -> Credentials:
    issuer = authorization_server_from_document(
        {
            "issuer": _ISSUER,
            "authorization_endpoint": f"{_ISSUER}/authorize",
            "token_endpoint": f"{_ISSUER}/token",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }
    )
    return Credentials(
        tokens(),
        Client("a-client", None, "none", (REDIRECT_URI,), is_registered=True),
        issuer,
        Binding(
            SERVER_NAME,
            url,
            _ISSUER,
            "a-client",
            resource=url,
            connected_at=time.time(),
            config_files=config_files,
        ),
    )

"""A HERMES_HOME with a login at one server, "bench"."""

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
# Do not resolve sys.executable: it may be a link to an interpreter outside the environment.
COMMAND = str(Path(sys.executable).parent / "hermes-mcp-auth")
MCP1_PYTHON = Path(__file__).resolve().parents[1] / ".venvs" / "hermes" / "bin" / "python"
"""The environment with the MCP SDK 1.x. `make test` creates it. If it is missing, SDK 1.x has no figures."""

FASTMCP_PYTHON = Path(__file__).resolve().parents[1] / ".venvs" / "bench" / "bin" / "python"
"""The environment with FastMCP. `make bench` creates it. If it is missing, FastMCP has no figures."""

REDIRECT_URI = "http://127.0.0.1:51234/callback"
_ISSUER = "https://as.example"


@contextmanager
def logged_in_home(url: str = "http://127.0.0.1:9/mcp") -> Generator[Path]:
    """Yield a HERMES_HOME with a login at `url` that is valid for an hour. Delete it when the block ends."""
    with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
        home = Path(folder)
        servers = {"mcp_servers": {SERVER_NAME: {"url": url, "auth": "oauth"}}}
        # JSON is YAML.
        (home / "config.yaml").write_text(json.dumps(servers), encoding="utf-8")
        # Store the identity of the configuration files, as a login of this version does.
        FileStore(home).save_login(
            CredentialKey(SERVER_NAME), credentials_for(SERVER_NAME, url, config_identity(home))
        )
        (home / "sdk.json").write_text(json.dumps(sdk_tokens()), encoding="utf-8")
        yield home


def environ_for(home: Path) -> dict[str, str]:
    """Return environment variables for a process with this HERMES_HOME, without proxies."""
    without_proxies = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    return {**without_proxies, "HERMES_HOME": str(home), "PYTHONDONTWRITEBYTECODE": ""}


def tokens() -> Tokens:
    """Return tokens that are valid for an hour."""
    now = time.time()
    return Tokens(
        access_token=Secret(TOKEN),
        refresh_token=Secret("a-refresh-token"),
        scope=frozenset({"mcp:tools"}),
        expires_at=now + 3600,
        obtained_at=now,
    )


def sdk_tokens() -> dict[str, object]:
    """Return the same tokens in the format of the MCP SDK."""
    return {
        "access_token": TOKEN,
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "mcp:tools",
        "refresh_token": "a-refresh-token",
    }


def credentials_for(server_name: str, url: str, config_files: str) -> Credentials:
    """Return the credentials of a login to a server; `config_files` is the identity of the configuration."""
    authorization_server = authorization_server_from_document(
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
        authorization_server,
        Binding(
            server_name,
            url,
            _ISSUER,
            "a-client",
            resource=url,
            connected_at=time.time(),
            config_files=config_files,
        ),
    )

"""Logins of the MCP SDK 1.x with SharedTokenStorage. Hermes reads the stored tokens."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests import leak_check
from tests.hermes.storage_process import run_hermes_storage
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.store.builders import ROOT

pytestmark = [pytest.mark.hermes, pytest.mark.real_hermes]

PYTHON = ROOT / ".venvs" / "hermes" / "bin" / "python"

# For SDK 1 and 2: each line on stdin starts `calls` concurrent requests.
APP_SCRIPT = """
import asyncio, importlib, json, sys
from importlib.metadata import version
from urllib.parse import parse_qsl, urlsplit
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata
from hermes_mcp_auth_remote.auth.provider import shared_provider
from hermes_mcp_auth_remote.auth.storage import SharedTokenStorage

MAJOR = int(version("mcp").partition(".")[0])
httpx = importlib.import_module("httpx" if MAJOR == 1 else "httpx2")
url, kind, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
authorization_urls = []

async def redirect(url):
    authorization_urls.append(url)

async def callback():
    async with httpx.AsyncClient() as browser:
        response = await browser.get(authorization_urls[-1])
    query = dict(parse_qsl(urlsplit(response.headers["location"]).query))
    if MAJOR == 1:
        return query["code"], query["state"]
    from mcp.shared.auth import AuthorizationCodeResult
    return AuthorizationCodeResult(code=query["code"], state=query["state"], iss=query.get("iss"))

async def main(provider):
    async with httpx.AsyncClient(auth=provider, timeout=30) as client:
        responses = await asyncio.gather(*(client.get(url) for _ in range(calls)))
        return [response.status_code for response in responses]

metadata = OAuthClientMetadata(client_name="An app", redirect_uris=["http://localhost:3030/callback"])
Provider = shared_provider(OAuthClientProvider) if kind == "shared" else OAuthClientProvider
provider = Provider(url, metadata, SharedTokenStorage("notes"), redirect, callback)
print("ready", flush=True)
while sys.stdin.readline().strip():
    statuses = asyncio.run(main(provider))
    print(json.dumps({"sdk": MAJOR, "statuses": statuses, "prompts": len(authorization_urls)}), flush=True)
"""


class SdkApp:
    """A program in its own process that uses the SDK."""

    def __init__(
        self, python: str | Path, home: Path, url: str, kind: str = "shared", calls: int = 1
    ) -> None:
        self.process = subprocess.Popen(
            [str(python), "-c", APP_SCRIPT, url, kind, str(calls)],
            cwd=home,
            env={**os.environ, "HERMES_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.is_ready = False

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start_calls(self) -> None:
        assert self.process.stdin is not None
        if not self.is_ready:
            assert self.read_line() == "ready"
            self.is_ready = True
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def make_calls(self) -> dict[str, Any]:
        self.start_calls()
        result: dict[str, Any] = json.loads(self.read_line())
        return result


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with serve_demo(Behaviour(auto_approve=True)) as demo:
        leak_check.watch_secrets(demo.authorization_server.minted_secrets)
        entry = f"mcp_servers:\n  notes:\n    url: {demo.ping_url}\n    auth: oauth\n"
        (tmp_path / "config.yaml").write_text(entry)
        yield demo


@pytest.fixture
def apps() -> Iterator[list[SdkApp]]:
    running_apps: list[SdkApp] = []
    yield running_apps
    for app in running_apps:
        app.process.communicate()


def start_app(apps: list[SdkApp], python: str | Path, *arguments: Any) -> SdkApp:
    app = SdkApp(python, *arguments)
    apps.append(app)
    return app


def expire_access_token(home: Path) -> None:
    """Set the stored access token's expiry to the past."""
    path = home / "mcp-tokens" / "notes.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expires_at": time.time() - 10}))


@covers("sdk-storage")
@pytest.mark.parametrize("kind", ["storage", pytest.param("shared", marks=pytest.mark.soak)])
def test_our_store_and_hermes_read_the_tokens_of_an_sdk_1_login(
    tmp_path: Path, demo: Demo, apps: list[SdkApp], kind: str
) -> None:
    app = start_app(apps, PYTHON, tmp_path, demo.ping_url, kind)
    assert app.make_calls() == {"sdk": 1, "statuses": [200], "prompts": 1}
    service, server = AuthService(tmp_path), Server("notes", demo.ping_url)
    tokens = service.blocking.read_credentials(server).tokens
    assert tokens is not None
    assert tokens.refresh_token is not None
    with run_hermes_storage(tmp_path) as storage:
        hermes_view = storage.read_stored(tmp_path)
    assert hermes_view["tokens"]["access_token"] == tokens.access_token.reveal()
    assert hermes_view["tokens"]["refresh_token"] == tokens.refresh_token.reveal()
    assert hermes_view["client"]["redirect_uris"] == ["http://localhost:3030/callback"]
    assert hermes_view["metadata"]["token_endpoint"].startswith(demo.authorization_server.issuer)
    expire_access_token(tmp_path)
    assert asyncio.run(service.session(server).header()) != tokens.authorization_header
    assert demo.authorization_server.count_requests("refresh") == 1
    assert service.blocking.keys() == [CredentialKey("notes")]


@covers("sdk-provider")
def test_processes_of_both_sdks_refresh_an_expired_token_once(
    tmp_path: Path, demo: Demo, apps: list[SdkApp]
) -> None:
    first = start_app(apps, PYTHON, tmp_path, demo.ping_url, "shared", 10)
    second = start_app(apps, sys.executable, tmp_path, demo.ping_url, "shared", 10)
    assert first.make_calls() == {"sdk": 1, "statuses": [200] * 10, "prompts": 1}
    assert second.make_calls() == {"sdk": 2, "statuses": [200] * 10, "prompts": 0}
    for _ in range(2):
        previous_count = demo.authorization_server.count_requests("refresh")
        expire_access_token(tmp_path)
        demo.authorization_server.ledger.revoke_access_tokens()
        first.start_calls()
        second.start_calls()
        results = [json.loads(app.read_line()) for app in (first, second)]
        assert [answer["statuses"] for answer in results] == [[200] * 10] * 2
        assert [answer["prompts"] for answer in results] == [1, 0]
        assert demo.authorization_server.count_requests("refresh") == previous_count + 1
    assert demo.authorization_server.count_requests("token") == 1


@covers("sdk-provider")
def test_the_sdk_1_prompts_once_if_the_session_is_over(
    tmp_path: Path, demo: Demo, apps: list[SdkApp]
) -> None:
    app = start_app(apps, PYTHON, tmp_path, demo.ping_url, "shared", 10)
    assert app.make_calls()["statuses"] == [200] * 10
    demo.authorization_server.ledger.revoke_everything()
    assert app.make_calls() == {"sdk": 1, "statuses": [200] * 10, "prompts": 2}
    assert demo.authorization_server.count_requests("registration") == 1

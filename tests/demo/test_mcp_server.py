"""The protected resources check tokens and name errors. The client of the MCP SDK logs in to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.types import TextContent
from pydantic import AnyUrl

from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from tests.consent_form import approve
from tests.demo.manual_client import REDIRECT_URI, ManualClient, parameters_of
from tests.parts.authorization_server import Demo

pytestmark = pytest.mark.slow


def challenge_of(response: httpx.Response) -> Challenge:
    return read_challenge(response.headers.get_list("www-authenticate"))


def test_a_401_without_a_token_names_metadata_and_scope_but_no_error(demo: Demo) -> None:
    for url, path in ((demo.mcp_url, "/mcp"), (demo.ping_url, "/api/ping")):
        response = httpx.post(url, json={})
        metadata_url = f"{demo.resources.origin}/.well-known/oauth-protected-resource{path}"
        assert response.status_code == 401
        assert challenge_of(response) == Challenge((metadata_url,), frozenset({"mcp:tools"}), None)
        document = httpx.get(metadata_url).json()
        assert (document["resource"], document["authorization_servers"]) == (url, [demo.issuer])


def test_a_token_is_valid_at_its_own_resource_only(demo: Demo) -> None:
    client = ManualClient(demo)
    token = client.obtain_tokens()["access_token"]
    assert client.call_mcp(token).status_code == 200
    for other_url in (demo.ping_url, f"{demo.resources.origin}/other/mcp"):
        response = client.call_mcp(token, other_url)
        assert (response.status_code, challenge_of(response).error) == (401, "invalid_token")


def test_a_token_for_the_origin_is_valid_at_all_its_resources(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(resource_identifier="origin")
    client = ManualClient(demo)
    code = client.obtain_code(resource=demo.resources.origin)
    token = client.exchange(code, resource=demo.resources.origin).json()["access_token"]
    assert client.call_mcp(token).status_code == 200
    assert client.call_mcp(token, demo.ping_url).json() == {"pong": True, "account": "ada@example.com"}


def test_root_metadata_names_the_origin_and_its_tokens_are_valid(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        resource_metadata_locations=("root",), challenge_names_metadata=False
    )
    metadata_url = f"{demo.resources.origin}/.well-known/oauth-protected-resource"
    assert httpx.get(f"{metadata_url}/mcp").status_code == 404
    resource = httpx.get(metadata_url).json()["resource"]
    assert challenge_of(httpx.post(demo.mcp_url, json={})).resource_metadata == ()
    client = ManualClient(demo)
    token = client.exchange(client.obtain_code(resource=resource), resource=resource).json()["access_token"]
    assert client.call_mcp(token).status_code == 200


def test_a_resource_identifier_may_end_with_a_slash(demo: Demo) -> None:
    odd = f"{demo.mcp_url}/"
    demo.authorization_server.change_behaviour(resource_overrides={"resource": odd})
    client = ManualClient(demo)
    token = client.exchange(client.obtain_code(resource=odd), resource=odd).json()["access_token"]
    assert client.call_mcp(token).status_code == 200


def test_a_narrow_scope_gets_a_403_with_the_required_scope(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(tool_scope={"add": frozenset({"mcp:write"})})
    client = ManualClient(demo)
    token = client.obtain_tokens()["access_token"]
    assert client.call_mcp(token).status_code == 200
    response = client.call_mcp(token, method="tools/call")
    assert response.status_code == 403
    assert challenge_of(response).has_insufficient_scope
    assert challenge_of(response).scope == frozenset({"mcp:tools", "mcp:write"})
    wider = client.obtain_tokens(scope="mcp:tools mcp:write")["access_token"]
    assert client.call_mcp(wider, method="tools/call").status_code == 200


def test_open_methods_need_no_token(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(open_methods=frozenset({"ping"}))
    client = ManualClient(demo)
    assert client.call_mcp(None).status_code == 200
    assert client.call_mcp(None, method="tools/call").status_code == 401


def test_the_scheme_is_case_insensitive_unless_the_option_forbids_it(demo: Demo) -> None:
    token = ManualClient(demo).obtain_tokens(resource=demo.mcp_url)["access_token"]
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"bearer {token}"}
    assert httpx.post(demo.mcp_url, json=message, headers=headers).status_code == 200
    demo.authorization_server.change_behaviour(exact_bearer=True)
    assert httpx.post(demo.mcp_url, json=message, headers=headers).status_code == 401


def test_a_test_can_set_the_challenge_headers(demo: Demo) -> None:
    lines = ("Basic realm='x'", "Bearer resource_metadata='{metadata}', scope='{scope}'")
    demo.authorization_server.change_behaviour(challenge_lines=lines)
    response = httpx.post(demo.mcp_url, json={})
    assert len(response.headers.get_list("www-authenticate")) == 2
    assert challenge_of(response).scope == frozenset({"mcp:tools"})


@dataclass
class MemoryStorage:
    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def test_the_sdk_client_logs_in_calls_tools_and_logs_in_again_after_a_401(demo: Demo) -> None:
    storage = MemoryStorage()
    redirects: list[str] = []

    async def redirect(url: str) -> None:
        redirects.append(await asyncio.to_thread(approve, url))

    async def callback() -> AuthorizationCodeResult:
        parameters = parameters_of(redirects[-1])
        return AuthorizationCodeResult(
            code=parameters["code"], state=parameters["state"], iss=parameters["iss"]
        )

    async def call(tool: str, arguments: dict[str, object]) -> str:
        metadata = OAuthClientMetadata(
            client_name="SDK",
            redirect_uris=[AnyUrl(REDIRECT_URI)],
            grant_types=["authorization_code", "refresh_token"],
        )
        auth = OAuthClientProvider(demo.mcp_url, metadata, storage, redirect, callback)
        async with (
            httpx2.AsyncClient(auth=auth, timeout=20) as http_client,
            Client(streamable_http_client(demo.mcp_url, http_client=http_client)) as client,
        ):
            names = [tool_info.name for tool_info in (await client.list_tools()).tools]
            assert names == ["whoami", "add"]
            (content,) = (await client.call_tool(tool, arguments)).content
            assert isinstance(content, TextContent)
            return content.text

    assert asyncio.run(call("whoami", {})) == "ada@example.com"
    assert storage.tokens is not None
    assert storage.tokens.access_token in demo.authorization_server.minted_secrets
    assert storage.tokens.refresh_token is not None
    assert asyncio.run(call("add", {"a": 2, "b": 3.5})) == "5.5"
    assert len(redirects) == 1

    demo.authorization_server.ledger.revoke_access_tokens()
    assert asyncio.run(call("add", {"a": 1, "b": 1})) == "2"
    assert (len(redirects), demo.authorization_server.count_requests("registration")) == (2, 1)

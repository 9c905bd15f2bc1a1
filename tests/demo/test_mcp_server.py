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
from tests.browserless import approve
from tests.demo.player import REDIRECT_URI, Player, parameters_of
from tests.parts.authorization_server import Demo

pytestmark = pytest.mark.slow


def challenge_of(answer: httpx.Response) -> Challenge:
    return read_challenge(answer.headers.get_list("www-authenticate"))


def test_without_a_token_a_401_names_the_metadata_and_the_scope_but_no_error(demo: Demo) -> None:
    for url, path in ((demo.mcp_url, "/mcp"), (demo.ping_url, "/api/ping")):
        answer = httpx.post(url, json={})
        place = f"{demo.resources.origin}/.well-known/oauth-protected-resource{path}"
        assert answer.status_code == 401
        assert challenge_of(answer) == Challenge((place,), frozenset({"mcp:tools"}), None)
        document = httpx.get(place).json()
        assert (document["resource"], document["authorization_servers"]) == (url, [demo.issuer])


def test_a_token_is_good_at_its_own_resource_only(demo: Demo) -> None:
    player = Player(demo)
    token = player.tokens()["access_token"]
    assert player.call(token).status_code == 200
    for elsewhere in (demo.ping_url, f"{demo.resources.origin}/other/mcp"):
        answer = player.call(token, elsewhere)
        assert (answer.status_code, challenge_of(answer).error) == (401, "invalid_token")


def test_with_one_identifier_for_the_origin_a_token_is_good_everywhere(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(resource_identifier="origin")
    player = Player(demo)
    code = player.code(resource=demo.resources.origin)
    token = player.exchange(code, resource=demo.resources.origin).json()["access_token"]
    assert player.call(token).status_code == 200
    assert player.call(token, demo.ping_url).json() == {"pong": True, "account": "ada@example.com"}


def test_metadata_only_at_the_root_names_the_origin_and_its_tokens_are_good(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        resource_metadata_locations=("root",), challenge_names_metadata=False
    )
    place = f"{demo.resources.origin}/.well-known/oauth-protected-resource"
    assert httpx.get(f"{place}/mcp").status_code == 404
    resource = httpx.get(place).json()["resource"]
    assert challenge_of(httpx.post(demo.mcp_url, json={})).resource_metadata == ()
    player = Player(demo)
    token = player.exchange(player.code(resource=resource), resource=resource).json()["access_token"]
    assert player.call(token).status_code == 200


def test_a_resource_can_be_spelt_oddly(demo: Demo) -> None:
    odd = f"{demo.mcp_url}/"
    demo.authorization_server.change_behaviour(resource_overrides={"resource": odd})
    player = Player(demo)
    token = player.exchange(player.code(resource=odd), resource=odd).json()["access_token"]
    assert player.call(token).status_code == 200


def test_a_narrow_scope_gets_403_and_the_scope_that_it_takes(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(tool_scope={"add": frozenset({"mcp:write"})})
    player = Player(demo)
    token = player.tokens()["access_token"]
    assert player.call(token).status_code == 200
    answer = player.call(token, method="tools/call")
    assert answer.status_code == 403
    assert challenge_of(answer).has_insufficient_scope
    assert challenge_of(answer).scope == frozenset({"mcp:tools", "mcp:write"})
    wider = player.tokens(scope="mcp:tools mcp:write")["access_token"]
    assert player.call(wider, method="tools/call").status_code == 200


def test_open_methods_need_no_token(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(open_methods=frozenset({"ping"}))
    player = Player(demo)
    assert player.call(None).status_code == 200
    assert player.call(None, method="tools/call").status_code == 401


def test_the_scheme_may_be_spelt_in_any_case_unless_the_knob_says_otherwise(demo: Demo) -> None:
    token = Player(demo).tokens(resource=demo.mcp_url)["access_token"]
    ask = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"bearer {token}"}
    assert httpx.post(demo.mcp_url, json=ask, headers=headers).status_code == 200
    demo.authorization_server.change_behaviour(exact_bearer=True)
    assert httpx.post(demo.mcp_url, json=ask, headers=headers).status_code == 401


def test_the_challenge_can_be_written_by_hand(demo: Demo) -> None:
    lines = ("Basic realm='x'", "Bearer resource_metadata='{metadata}', scope='{scope}'")
    demo.authorization_server.change_behaviour(challenge_lines=lines)
    answer = httpx.post(demo.mcp_url, json={})
    assert len(answer.headers.get_list("www-authenticate")) == 2
    assert challenge_of(answer).scope == frozenset({"mcp:tools"})


@dataclass
class Memory:
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


def test_the_sdks_own_client_logs_in_calls_tools_and_logs_in_again_once_refused(demo: Demo) -> None:
    memory = Memory()
    landed: list[str] = []

    async def redirect(url: str) -> None:
        landed.append(await asyncio.to_thread(approve, url))

    async def callback() -> AuthorizationCodeResult:
        answer = parameters_of(landed[-1])
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer["iss"])

    async def call(tool: str, arguments: dict[str, object]) -> str:
        metadata = OAuthClientMetadata(
            client_name="SDK",
            redirect_uris=[AnyUrl(REDIRECT_URI)],
            grant_types=["authorization_code", "refresh_token"],
        )
        auth = OAuthClientProvider(demo.mcp_url, metadata, memory, redirect, callback)
        async with (
            httpx2.AsyncClient(auth=auth, timeout=20) as http_client,
            Client(streamable_http_client(demo.mcp_url, http_client=http_client)) as client,
        ):
            names = [known.name for known in (await client.list_tools()).tools]
            assert names == ["whoami", "add"]
            (content,) = (await client.call_tool(tool, arguments)).content
            assert isinstance(content, TextContent)
            return content.text

    assert asyncio.run(call("whoami", {})) == "ada@example.com"
    assert memory.tokens is not None
    assert memory.tokens.access_token in demo.authorization_server.minted_secrets
    assert memory.tokens.refresh_token is not None
    assert asyncio.run(call("add", {"a": 2, "b": 3.5})) == "5.5"
    assert len(landed) == 1

    demo.authorization_server.ledger.revoke_access_tokens()
    assert asyncio.run(call("add", {"a": 1, "b": 1})) == "2"
    assert (len(landed), demo.authorization_server.count_requests("registration")) == (2, 1)

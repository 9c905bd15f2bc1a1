"""The client that the official conformance suite starts: `python client.py LOCK_FOLDER URL`.

It is the MCP SDK's client with this package's `McpAuth` and an `AuthService` with an empty store. There is no
user: the client opens the authorization URL itself, and the suite's server approves at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import httpx2
import mcp_types as types
from mcp.client import Client, ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import IdentityProvider, Origin, Secret, Server, ServerOptions

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "auth/metadata-default")
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")

TERMINAL = Origin("terminal")
MAX_CONCURRENT_CLIENTS = 3
# The suite expects this URL.
CLIENT_METADATA_URL = "https://conformance-test.local/client-metadata.json"
TOOLS_BY_SCENARIO: Mapping[str, tuple[str, ...]] = {
    "tools_call": ("add_numbers",),
    "request-metadata": ("add_numbers",),
    "http-standard-headers": ("add_numbers",),
    "sse-retry": ("test_reconnection",),
    "elicitation-sep1034-client-defaults": ("test_client_elicitation_defaults",),
    "sep-2322-client-request-state": (
        "test_mrtr_echo_state",
        "test_mrtr_unrelated",
        "test_mrtr_no_state",
        "test_mrtr_no_result_type",
    ),
}
# The SDK rejects the result of this tool, because its format is older. The suite checks only that the
# client does not retry.
TOOLS_THAT_MAY_FAIL = frozenset({"test_mrtr_no_result_type"})
ARGUMENTS_BY_TOOL: Mapping[str, dict[str, Any]] = {"add_numbers": {"a": 5, "b": 3}}


class SelfApprovingSession:
    """A session that approves each login that it needs, as a user would."""

    def __init__(self, service: AuthService, session: Session) -> None:
        self._service = service
        self._session = session
        self.server = session.server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def header(self) -> str:
        try:
            return await self._session.header()
        except AuthorizationRequired:
            # Send the first request without a token. The challenge tells which scope to request.
            return ""

    def report_retry(self, header: str, *, is_accepted: bool) -> None:
        pass

    async def handle_challenge(self, refused: str, status: int, www_authenticate: list[str]) -> str | None:
        try:
            return await self._session.handle_challenge(refused, status, www_authenticate)
        except AuthorizationRequired:
            await self._log_in(read_challenge(www_authenticate))
            return await self._session.header()

    async def _log_in(self, challenge: Challenge) -> None:
        login = await self._service.start_login(self.server, TERMINAL, challenge=challenge)
        async with httpx2.AsyncClient() as browser:
            page = await browser.get(login.request.url)
        await self._service.complete_login(login.id, page.headers["location"], TERMINAL)


def make_options(folder: Path) -> ServerOptions:
    """Return the options that an operator would configure for this scenario."""
    secret, key = CONTEXT.get("client_secret"), CONTEXT.get("private_key_pem")
    base_options = ServerOptions(
        client_id=CONTEXT.get("client_id"),
        client_secret=Secret(secret) if secret else None,
        client_metadata_url=CLIENT_METADATA_URL,
        private_key_file=write_file(folder / "key.pem", key) if key else None,
    )
    match SCENARIO:
        case "auth/client-credentials-jwt" | "auth/client-credentials-basic":
            return replace(base_options, grant="client_credentials")
        case "auth/wif-jwt-bearer":
            file = write_file(folder / "workload.jwt", CONTEXT["valid_jwt"])
            return replace(base_options, grant="jwt_bearer", assertion_file=file)
        case "auth/enterprise-managed-authorization":
            file = write_file(folder / "id_token", CONTEXT["idp_id_token"])
            endpoint, client_id = CONTEXT["idp_token_endpoint"], CONTEXT["idp_client_id"]
            provider = IdentityProvider(endpoint, file, client_id)
            return replace(base_options, grant="enterprise", identity_provider=provider)
        case _:
            return base_options


def write_file(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


async def run_with_auth(url: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        service = AuthService(Path(home))
        server = Server("conformance", url, make_options(Path(home)))
        auth = McpAuth(SelfApprovingSession(service, service.session(server)))
        async with httpx2.AsyncClient(auth=auth, timeout=30.0) as http:
            await call_tools(streamable_http_client(url, http_client=http))


async def call_tools(server: Any) -> None:
    """List the tools, and call those that the scenario needs."""
    # For this scenario the suite's server uses the older lifecycle with every version.
    modern = VERSION in MODERN_PROTOCOL_VERSIONS and SCENARIO != "json-schema-ref-no-deref"
    mode: Literal["auto", "legacy"] = "auto" if modern else "legacy"
    async with Client(
        server,
        mode=mode,
        elicitation_callback=accept_elicitation,
        sampling_callback=return_empty_sample,
        list_roots_callback=return_no_roots,
    ) as client:
        tools = (await client.list_tools()).tools
        for name, arguments in select_calls(tools):
            try:
                await client.call_tool(name, arguments)
            except Exception as error:
                if name not in TOOLS_THAT_MAY_FAIL and not SCENARIO.startswith("http-"):
                    raise
                print(f"{name}: {error}", file=sys.stderr)


def select_calls(tools: list[types.Tool]) -> list[tuple[str, dict[str, Any]]]:
    names = [tool.name for tool in tools]
    if SCENARIO in TOOLS_BY_SCENARIO:
        return [(name, ARGUMENTS_BY_TOOL.get(name, {})) for name in TOOLS_BY_SCENARIO[SCENARIO]]
    if SCENARIO == "http-custom-headers":
        wanted = CONTEXT.get("toolCalls", [])
        return [(call["name"], call.get("arguments") or {}) for call in wanted if call["name"] in names]
    if SCENARIO == "http-invalid-tool-headers":
        return [(tool.name, minimal_arguments(tool.input_schema)) for tool in tools]
    if SCENARIO == "json-schema-2020-12-preservation":
        schemas = {tool.name: tool.input_schema for tool in tools}
        return [("json_schema_echo", {"schema": schemas["json_schema_2020_12_tool"]})]
    return [(names[0], {})] if SCENARIO.startswith("auth/") and names else []


def minimal_arguments(schema: dict[str, Any]) -> dict[str, Any]:
    """Return minimal values for the required arguments of a tool."""
    empty: dict[str, Any] = {"integer": 0, "number": 0, "boolean": False, "object": {}, "array": []}
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    return {name: empty.get(properties[name].get("type", ""), "x") for name in schema.get("required", [])}


async def accept_elicitation(
    context: ClientRequestContext, params: types.ElicitRequestParams
) -> types.ElicitResult | types.ErrorData:
    content: dict[str, Any] = {}
    if isinstance(params, types.ElicitRequestFormParams):
        properties: dict[str, Any] = params.requested_schema.get("properties", {})
        content = {
            name: property_schema["default"]
            for name, property_schema in properties.items()
            if "default" in property_schema
        }
        content |= {
            name: True
            for name, property_schema in properties.items()
            if property_schema == {"type": "boolean"}
        }
    return types.ElicitResult(action="accept", content=content)


async def return_empty_sample(
    context: ClientRequestContext, params: types.CreateMessageRequestParams
) -> types.CreateMessageResult | types.ErrorData:
    text = types.TextContent(type="text", text="")
    return types.CreateMessageResult(role="assistant", content=text, model="none")


async def return_no_roots(context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
    return types.ListRootsResult(roots=[])


@contextmanager
def limit_concurrency(folder: str) -> Iterator[None]:
    """Limit the number of running clients: the suite starts all at once, and the SDK has a timeout of 5 s."""
    with Path(folder, f"slot-{os.getpid() % MAX_CONCURRENT_CLIENTS}").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    with limit_concurrency(sys.argv[1]):
        asyncio.run(run_with_auth(sys.argv[2]) if SCENARIO.startswith("auth/") else call_tools(sys.argv[2]))

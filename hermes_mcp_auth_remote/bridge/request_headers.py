"""The HTTP headers that repeat parts of a message (MCP 2026-07-28, Request Metadata). Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from hermes_mcp_auth_remote.bridge.json_rpc import Message

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
# The first revision that sends its version with each request and has no sessions.
FIRST_STATELESS_VERSION = "2026-07-28"
_NAME_PARAMETERS = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = re.compile(r"[0-9A-Za-z.-]{1,32}")
# No server describes more; the rest is ignored.
_MAX_TOOLS = 10_000
_MAX_DEPTH = 8


@dataclass(slots=True)
class ToolHeaders:
    """The tool parameters that the client repeats as headers: the schemas mark them with `x-mcp-header`."""

    # By tool: the header's name and the path of the parameter.
    _paths: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = field(
        default_factory=dict[str, tuple[tuple[str, tuple[str, ...]], ...]]
    )

    def learn(self, response: Message) -> None:
        """Remember the annotations of the tools in a `tools/list` result."""
        tools = response.result.get("tools")
        if not isinstance(tools, list):
            return
        for tool in cast("list[object]", tools)[:_MAX_TOOLS]:
            if isinstance(tool, Mapping):
                described = cast("Mapping[str, Any]", tool)
                name, schema = described.get("name"), described.get("inputSchema")
                if isinstance(name, str) and isinstance(schema, Mapping):
                    self._paths[name] = tuple(_annotated_paths(cast("Mapping[str, Any]", schema), ()))

    def headers_for(self, message: Message) -> dict[str, str]:
        """Return the `Mcp-Param-…` headers of a tool call."""
        headers = dict[str, str]()
        for header, path in self._paths.get(str(message.params.get("name")), ()):
            value: object = message.params.get("arguments")
            for key in path:
                value = cast("Mapping[str, object]", value).get(key) if isinstance(value, Mapping) else None
            if isinstance(value, bool):
                headers[f"Mcp-Param-{header}"] = "true" if value else "false"
            elif isinstance(value, str | int):
                headers[f"Mcp-Param-{header}"] = encode_header_value(str(value))
        return headers


def _annotated_paths(schema: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or len(path) >= _MAX_DEPTH:
        return []
    paths: list[tuple[str, tuple[str, ...]]] = []
    for name, described in cast("Mapping[str, object]", properties).items():
        if isinstance(described, Mapping):
            property_schema = cast("Mapping[str, Any]", described)
            header = property_schema.get("x-mcp-header")
            if isinstance(header, str) and _TOKEN.fullmatch(header):
                paths.append((header, (*path, name)))
            paths += _annotated_paths(property_schema, (*path, name))
    return paths


def encode_header_value(value: str) -> str:
    """Return a value for a header: itself if it is plain ASCII, else `=?base64?…?=`."""
    is_plain = value.isascii() and value.isprintable() and value == value.strip()
    if is_plain and not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode()}?="


def stateless_version(message: Message) -> str | None:
    """Return the protocol version that a message carries itself (2026-07-28 and later), else None."""
    version = message.meta.get(VERSION_KEY)
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None


def request_headers(
    message: Message, negotiated_version: str | None, tool_headers: ToolHeaders
) -> dict[str, str]:
    """Return the metadata headers of a message. `negotiated_version` is from the result of `initialize`."""
    version = stateless_version(message)
    if version is None:
        # Versions before 2025-06-18 have no version header, and `initialize` is always sent without it.
        is_initialize = message.method == "initialize"
        if negotiated_version is None or is_initialize or not _VERSION.fullmatch(negotiated_version):
            return {}
        return {"MCP-Protocol-Version": negotiated_version}
    headers = {"MCP-Protocol-Version": version, "Mcp-Method": encode_header_value(message.method)}
    name = message.params.get(_NAME_PARAMETERS.get(message.method, ""))
    if isinstance(name, str):
        headers["Mcp-Name"] = encode_header_value(name)
    if message.method == "tools/call":
        headers.update(tool_headers.headers_for(message))
    return headers

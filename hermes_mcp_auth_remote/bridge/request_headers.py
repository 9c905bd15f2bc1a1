"""The HTTP headers that repeat parts of a message (MCP 2026-07-28, Request Metadata). Pure."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard, cast

from hermes_mcp_auth_remote.bridge.json_rpc import Message, encode

_log = logging.getLogger(__name__)

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
# The first revision that sends its version with each request and has no sessions.
FIRST_STATELESS_VERSION = "2026-07-28"
# MCP 2026-07-28, Server Validation: the headers of a request do not match its body.
HEADER_MISMATCH = -32020
_NAME_PARAMETERS = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = re.compile(r"[0-9A-Za-z.-]{1,32}")
# The schemas in a schema (JSON Schema 2020-12) that do not describe exactly one parameter.
_SCHEMA_KEYWORDS = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_MIRRORED_TYPES = ("string", "integer", "boolean")
_SCHEMA_LIST_KEYWORDS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMA_MAP_KEYWORDS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties"})
# No server describes more; the rest is ignored.
_MAX_TOOLS = 10_000
_MAX_DEPTH = 32
_MAX_LOGGED_NAME = 100


class InvalidAnnotation(Exception):
    """The schema of a tool has an `x-mcp-header` that the specification does not allow."""


@dataclass(slots=True)
class ToolHeaders:
    """The tool parameters that the client repeats as headers: the schemas mark them with `x-mcp-header`."""

    # By tool: the header's name and the path of the parameter.
    _paths: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = field(
        default_factory=dict[str, tuple[tuple[str, tuple[str, ...]], ...]]
    )

    def learn(self, response: Message) -> Message:
        """Remember the annotations of the tools in a `tools/list` result.

        Return the result without the tools whose annotations are invalid: a client must not offer them.
        """
        tools = response.result.get("tools")
        if not isinstance(tools, list):
            return response
        valid_tools = [tool for tool in cast("list[object]", tools)[:_MAX_TOOLS] if self._learn_tool(tool)]
        valid_tools += cast("list[object]", tools)[_MAX_TOOLS:]
        if len(valid_tools) == len(cast("list[object]", tools)):
            return response
        members = {**response.members, "result": {**response.result, "tools": valid_tools}}
        try:
            return Message(members, encode(members))
        except ValueError:
            # A number that cannot be written again.
            return response

    def _learn_tool(self, tool: object) -> bool:
        """Remember the annotations of a tool; return False if they are invalid."""
        if not isinstance(tool, Mapping):
            return True
        described = cast("Mapping[str, object]", tool)
        name = described.get("name")
        if not isinstance(name, str):
            return True
        try:
            self._paths[name] = tuple(_annotated_paths(described.get("inputSchema")))
        except InvalidAnnotation as error:
            self._paths.pop(name, None)
            _log.warning("The tool %r is left out: %s", name[:_MAX_LOGGED_NAME], error)
            return False
        return True

    def headers_for(self, message: Message) -> dict[str, str]:
        """Return the `Mcp-Param-…` headers of a tool call."""
        headers = dict[str, str]()
        for header, path in self._paths.get(str(message.params.get("name")), ()):
            value: object = message.params.get("arguments")
            for key in path:
                value = cast("Mapping[str, object]", value).get(key) if isinstance(value, Mapping) else None
            if isinstance(value, bool):
                headers[f"Mcp-Param-{header}"] = "true" if value else "false"
            elif isinstance(value, str | int | float):
                headers[f"Mcp-Param-{header}"] = encode_header_value(str(value))
        return headers


def _annotated_paths(schema: object) -> list[tuple[str, tuple[str, ...]]]:
    """Return the name and the path of each annotated parameter; raises InvalidAnnotation."""
    annotated: dict[str, tuple[str, tuple[str, ...]]] = {}
    schemas: list[tuple[object, tuple[str, ...] | None]] = [(schema, ())]
    while schemas:
        described, path = schemas.pop()
        if not isinstance(described, Mapping):
            continue
        keywords = cast("Mapping[str, object]", described)
        if "x-mcp-header" in keywords:
            header = _read_annotation(keywords, path)
            if header.lower() in annotated:
                raise InvalidAnnotation("two parameters have the same x-mcp-header.")
            annotated[header.lower()] = header, path or ()
        schemas += _subschemas(keywords, path)
    return list(annotated.values())


def _subschemas(
    keywords: Mapping[str, object], path: tuple[str, ...] | None
) -> Iterator[tuple[object, tuple[str, ...] | None]]:
    """Yield the schemas in a schema. The path is None if a schema does not describe exactly one parameter."""
    for keyword, value in keywords.items():
        if keyword == "properties" and isinstance(value, Mapping):
            is_reachable = path is not None and len(path) < _MAX_DEPTH
            for name, item in cast("Mapping[str, object]", value).items():
                yield item, (*path, name) if path is not None and is_reachable else None
        elif keyword in _SCHEMA_KEYWORDS:
            yield value, None
        elif keyword in _SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            for item in cast("list[object]", value):
                yield item, None
        elif keyword in _SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
            for item in cast("Mapping[str, object]", value).values():
                yield item, None


def _read_annotation(keywords: Mapping[str, object], path: tuple[str, ...] | None) -> str:
    """Return the `x-mcp-header` of a schema; raises InvalidAnnotation."""
    if not path:
        raise InvalidAnnotation("an x-mcp-header is not on a parameter.")
    header = keywords["x-mcp-header"]
    if not isinstance(header, str) or not _TOKEN.fullmatch(header):
        raise InvalidAnnotation("an x-mcp-header is not the name of a header.")
    if keywords.get("type") not in _MIRRORED_TYPES:
        raise InvalidAnnotation("an x-mcp-header is on a parameter of another type than the allowed ones.")
    return header


def encode_header_value(value: str) -> str:
    """Return a value for a header: itself if it is plain ASCII, else `=?base64?…?=`."""
    is_plain = value.isascii() and value.isprintable() and value == value.strip()
    if is_plain and not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode()}?="


def is_version(value: object) -> TypeGuard[str]:
    """True for a version of the protocol that may be sent in a header."""
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def stateless_version(message: Message) -> str | None:
    """Return the protocol version that a message carries itself (2026-07-28 and later), else None."""
    version = message.meta.get(VERSION_KEY)
    return version if is_version(version) else None


def request_headers(
    message: Message, negotiated_version: str | None, tool_headers: ToolHeaders
) -> dict[str, str]:
    """Return the metadata headers of a message. `negotiated_version` is from the result of `initialize`."""
    version = stateless_version(message)
    if version is None:
        # Versions before 2025-06-18 have no version header, and `initialize` is always sent without it.
        is_initialize = message.method == "initialize"
        if is_initialize or not is_version(negotiated_version):
            return {}
        return {"MCP-Protocol-Version": negotiated_version}
    headers = {"MCP-Protocol-Version": version, "Mcp-Method": encode_header_value(message.method)}
    name = message.params.get(_NAME_PARAMETERS.get(message.method, ""))
    if isinstance(name, str):
        headers["Mcp-Name"] = encode_header_value(name)
    if message.method == "tools/call":
        headers.update(tool_headers.headers_for(message))
    return headers

"""The examples in the help of each verb. A test runs each line."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "login": (
        "hermes-mcp-auth login linear --url https://mcp.linear.app/mcp",
        "hermes-mcp-auth login linear",
        "hermes-mcp-auth login linear --no-wait",
        "hermes-mcp-auth login linear --via telegram:42 --no-wait",
    ),
    "status": (
        "hermes-mcp-auth status",
        "hermes-mcp-auth status linear",
        "hermes-mcp-auth status --check || echo Log in, please.",
    ),
    "token": ("hermes-mcp-auth token linear", "hermes-mcp-auth token linear --json"),
    "header": (
        "hermes-mcp-auth header linear | curl -I -H @- https://mcp.linear.app/mcp",
        "hermes-mcp-auth header linear --json",
    ),
    "run": (
        "hermes-mcp-auth run linear -- env",
        "hermes-mcp-auth run linear --env TOKEN -- sh -c 'test -n \"$TOKEN\" && echo OK'",
    ),
    "connect": (
        "hermes-mcp-auth connect linear",
        "hermes-mcp-auth connect https://mcp.linear.app/mcp",
        "hermes-mcp-auth connect linear --via telegram:42",
    ),
    "logout": (
        "hermes-mcp-auth logout linear",
        "hermes-mcp-auth logout --owner telegram:42",
        "hermes-mcp-auth logout --all",
    ),
    "doctor": (
        "hermes-mcp-auth doctor",
        "hermes-mcp-auth doctor linear",
        "hermes-mcp-auth doctor https://mcp.linear.app/mcp",
    ),
    "serve": (
        "hermes-mcp-auth serve --telegram",
        "hermes-mcp-auth serve --telegram --allow 42",
        "hermes-mcp-auth serve --telegram --discord --allow telegram:42,discord:8035111",
    ),
    "demo": ("hermes-mcp-auth demo", "hermes-mcp-auth demo --flow device", "hermes-mcp-auth demo --serve"),
}


def help_examples(verb: str) -> str:
    """Return the part of a verb's help that shows its examples."""
    return "\n  ".join(["examples:", *EXAMPLES[verb]])

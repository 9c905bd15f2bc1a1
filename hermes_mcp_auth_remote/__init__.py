"""Headless-first OAuth 2.1 for remote MCP servers: log in from a chat, over SSH or on a desktop.

    from hermes_mcp_auth_remote import McpAuth

    async with httpx.AsyncClient(auth=McpAuth("linear")) as client: ...

The package imports each name below when a caller first uses it. `import hermes_mcp_auth_remote` alone loads
no HTTP library.
"""

from __future__ import annotations

# Type checkers read this as `typing.TYPE_CHECKING`. It saves the import of typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from hermes_mcp_auth_remote.auth.any_library import McpAuth
    from hermes_mcp_auth_remote.login import Connection, Login, Prompter
    from hermes_mcp_auth_remote.service import AuthService
    from hermes_mcp_auth_remote.service.default import default_service, open_session
    from hermes_mcp_auth_remote.service.sessions import Session
    from hermes_mcp_auth_remote.values import Origin, Secret, Server, ServerOptions

__all__ = [
    "AuthService",
    "Connection",
    "Login",
    "McpAuth",
    "Origin",
    "Prompter",
    "Secret",
    "Server",
    "ServerOptions",
    "Session",
    "default_service",
    "open_session",
]

_MODULE_BY_NAME = {
    "AuthService": "service",
    "Connection": "login",
    "Login": "login",
    "McpAuth": "auth.any_library",
    "Origin": "values",
    "Prompter": "login",
    "Secret": "values",
    "Server": "values",
    "ServerOptions": "values",
    "Session": "service.sessions",
    "default_service": "service.default",
    "open_session": "service.default",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"{__name__}.{_MODULE_BY_NAME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

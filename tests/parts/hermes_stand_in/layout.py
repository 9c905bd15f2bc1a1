"""The module tree of the later Hermes. It says which module has which name."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from tests.parts.hermes_stand_in import gateway, mcp_client, scopes

VERSION = "0.21.3"

MODULES: Mapping[str, Mapping[str, object]] = {
    "agent.secret_scope": {
        "build_profile_secret_scope": scopes.build_profile_secret_scope,
        "set_secret_scope": scopes.set_secret_scope,
        "reset_secret_scope": scopes.reset_secret_scope,
    },
    "gateway.platforms.base": {"get_document_cache_dir": gateway.get_document_cache_dir},
    "gateway.run": {},
    "gateway.session": {"SessionSource": gateway.SessionSource},
    "gateway.session_context": {"get_session_env": scopes.get_session_env},
    "gateway.slash_access": {"policy_for_source": gateway.policy_for_source},
    "hermes_cli": {"__version__": VERSION},
    "hermes_cli.plugins": {"_resolve_hook_callback_timeout": gateway.resolve_hook_callback_timeout},
    "hermes_cli.profiles": {"get_profile_dir": scopes.get_profile_dir},
    "hermes_constants": {
        "set_hermes_home_override": scopes.set_hermes_home_override,
        "reset_hermes_home_override": scopes.reset_hermes_home_override,
    },
    "tools.interrupt": {"is_interrupted": scopes.is_interrupted, "set_interrupt": scopes.set_interrupt},
    "tools.mcp_tool": {
        "_servers": mcp_client.servers,
        "_lock": mcp_client.lock,
        "_mcp_registry_scope": mcp_client.mcp_registry_scope,
        "_server_connect_failures": mcp_client.connect_failures,
        "_server_connect_retry_after": mcp_client.connect_retry_after,
    },
    "tools.mcp_tool_agent": {"refresh_agent_mcp_tools": gateway.refresh_agent_mcp_tools},
    "tools.mcp_tool_discovery": {
        "discover_mcp_tools": mcp_client.discover_mcp_tools,
        "get_mcp_status": mcp_client.get_mcp_status,
    },
    "tools.mcp_tool_lifecycle": {"shutdown_mcp_servers": mcp_client.shutdown_mcp_servers},
    "tools.mcp_tool_schema": {"sanitize_mcp_name_component": mcp_client.sanitize_mcp_name_component},
    "tools.mcp_tool_scope": {"current_mcp_servers": mcp_client.current_mcp_servers},
    "tools.registry": {"registry": mcp_client.registry},
}


def make_modules(without: Collection[str] = ()) -> dict[str, ModuleType]:
    """Return the modules and their packages by name, without the names in `without`."""
    modules: dict[str, ModuleType] = {}
    for full_name, members in MODULES.items():
        parts = full_name.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            if name not in modules:
                modules[name] = ModuleType(name)
                modules[name].__path__ = []
        vars(modules[full_name]).update({key: value for key, value in members.items() if key not in without})
    return modules


def install_layout(without: Collection[str] = (), target: dict[str, Any] | None = None) -> None:
    """Put the modules into `sys.modules`, or into `target`."""
    (sys.modules if target is None else target).update(make_modules(without))

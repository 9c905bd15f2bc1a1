"""For each name, the upstream text that was read: a file and a commit of NousResearch/hermes-agent.

`commit` names the version of the file that was read. Several later versions have the same name in the file.
"""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """A file of the repository and the commit of the version that was read."""

    path: str
    commit: str


DISCOVERY = Source("tools/mcp_tool_discovery.py", "01021097f424dbadedea3dbc75adab7a863113fe")
LIFECYCLE = Source("tools/mcp_tool_lifecycle.py", "00067189dfecf833d4d009c2dd977ae85cf800e0")
SCHEMA = Source("tools/mcp_tool_schema.py", "1ff257df66623291fbb7aefb533b7b6472b7459c")
SCOPE = Source("tools/mcp_tool_scope.py", "0808508d76ed041170fae651346b74d08ee1331f")
AGENT = Source("tools/mcp_tool_agent.py", "03fc26e814c1d9cdf4485fbf5857e5eac281685c")
SESSION_CONTEXT = Source("gateway/session_context.py", "01937c3fe1b3cd78834d5fdf23a38faf69fbdfac")
SLASH_ACCESS = Source("gateway/slash_access.py", "00b481dbd55f9efb550e398d9497fa21ff778433")
PROFILES = Source("hermes_cli/profiles.py", "00067189dfecf833d4d009c2dd977ae85cf800e0")
PLUGINS = Source("hermes_cli/plugins.py", "00067189dfecf833d4d009c2dd977ae85cf800e0")
HOOKS = Source("hermes_cli/plugins_dispatch.py", "006a5aebb4d134ba188ff60adf1a02f668312b5f")
TELEGRAM = Source(
    "plugins/platforms/telegram/adapter_lifecycle.py", "0860dc1feadce2014e1f1eda0e9a0e3296be554b"
)
DISCORD = Source("plugins/platforms/discord/adapter_lifecycle.py", "1126fa5537bf20435c74a605ea084f6a0481a63a")
DISCORD_MESSAGES = Source(
    "plugins/platforms/discord/adapter_inbound.py", "04b6ab1d5fb747836a0be878cd541a71e5201911"
)
AUTHORIZATION = Source("gateway/authz_mixin.py", "00a9307509ec23a1f3f9a4641ab4523d555e9913")

SOURCES = {
    "discover_mcp_tools": DISCOVERY,
    "get_mcp_status": DISCOVERY,
    "shutdown_mcp_servers": LIFECYCLE,
    "set_hermes_home_override": LIFECYCLE,
    "reset_hermes_home_override": LIFECYCLE,
    "build_profile_secret_scope": LIFECYCLE,
    "set_secret_scope": LIFECYCLE,
    "reset_secret_scope": LIFECYCLE,
    "_servers": DISCOVERY,
    "_lock": DISCOVERY,
    "_mcp_registry_scope": SCOPE,
    "_server_connect_retry_after": DISCOVERY,
    "_server_connect_failures": DISCOVERY,
    "current_mcp_servers": SCOPE,
    "sanitize_mcp_name_component": SCHEMA,
    "refresh_agent_mcp_tools": AGENT,
    "registry": AGENT,
    "is_interrupted": DISCOVERY,
    "get_session_env": SESSION_CONTEXT,
    "policy_for_source": SLASH_ACCESS,
    "SessionSource": AUTHORIZATION,
    "_is_user_authorized": AUTHORIZATION,
    "_adapter_for_source": AUTHORIZATION,
    "adapters": AUTHORIZATION,
    "config": AUTHORIZATION,
    "get_profile_dir": PROFILES,
    "_resolve_hook_callback_timeout": HOOKS,
    "pre_gateway_dispatch": PLUGINS,
    "transform_tool_result": HOOKS,
    "register_tool": PLUGINS,
    "_app": TELEGRAM,
    "_client": DISCORD,
    "_is_allowed_user": DISCORD,
    "handle_message": DISCORD_MESSAGES,
    "_profile_adapters": AUTHORIZATION,
}

# For these names, the text of a later version was not read. The stand-in has them as in 0.19.
NOT_READ = frozenset(
    {
        "get_document_cache_dir",
        "_running_agents",
        "set_busy_session_handler",
        "_busy_session_handler",
    }
)

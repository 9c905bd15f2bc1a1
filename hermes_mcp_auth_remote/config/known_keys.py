"""The keys of config.yaml that this program or Hermes reads, and warnings about keys that neither reads.

Hermes owns the file and may read more keys than are listed here. So outside of `oauth:`, only a key that is
spelt almost like a known one is worth a warning. No warning shows a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import cast

# The keys that Hermes 0.19 to 0.21 reads in an entry of `mcp_servers`. This program reads some of them too.
ENTRY_KEYS = (
    "args",
    "auth",
    "client_cert",
    "client_key",
    "command",
    "connect_timeout",
    "elicitation",
    "enabled",
    "env",
    "headers",
    "idle_timeout_seconds",
    "keepalive_interval",
    "lifecycle",
    "max_lifetime_seconds",
    "oauth",
    "sampling",
    "skip_preflight",
    "ssl_verify",
    "supports_parallel_tool_calls",
    "timeout",
    "tools",
    "transport",
    "url",
)
_HERMES_OAUTH_KEYS = (
    "application_type",
    "cimd",
    "client_id",
    "client_metadata_url",
    "client_name",
    "client_secret",
    "flow",
    "redirect_host",
    "redirect_port",
    "redirect_uri",
    "scope",
    "timeout",
    "token_endpoint_auth_method",
    "user_agent",
)
_OWN_OAUTH_KEYS = (
    "allow_addresses",
    "allow_hosts",
    "allow_missing_pkce",
    "assertion_file",
    "authorization_server",
    "authorize_params",
    "device",
    "device_authorization_endpoint",
    "dpop",
    "grant",
    "identity_provider",
    "private_key_file",
    "private_key_id",
    "resource",
    "scope_cap",
    "trusted_issuers",
)
OAUTH_KEYS = (*_HERMES_OAUTH_KEYS, *_OWN_OAUTH_KEYS)
# `resources`, which Hermes reads in `tools:`, is no misspelt `oauth.resource`.
_MISPLACED_OAUTH_KEYS = tuple(key for key in OAUTH_KEYS if key not in {*ENTRY_KEYS, "resource"})
IDENTITY_PROVIDER_KEYS = ("token_endpoint", "token_file", "client_id", "client_secret", "subject_type")
SECTIONS = ("mcp_servers", "mcp_auth_chats")

# A misspelt key has at least this much in common with the right one (difflib's ratio).
_CUTOFF = 0.75
# A key may be any text, and a file may have thousands of them.
_MAX_KEY_CHARS = 60
MAX_WARNINGS = 20
# With one of these headers, a server needs no login.
_CREDENTIAL_HEADERS = ("authorization", "api-key", "apikey", "token", "x-auth")


def entry_warnings(name: str, entry: Mapping[str, object]) -> tuple[str, ...]:
    """Return what is probably wrong with an entry of `mcp_servers`, a sentence or two each."""
    path = f"mcp_servers.{name}"
    warnings = [*_misplaced_keys(path, entry), *_misspelt_keys(path, entry)]
    section = entry.get("oauth")
    if isinstance(section, Mapping):
        oauth = cast("Mapping[str, object]", section)
        warnings += _unknown_keys(f"{path}.oauth", oauth, OAUTH_KEYS, parent_keys=ENTRY_KEYS)
        provider = oauth.get("identity_provider")
        if isinstance(provider, Mapping):
            warnings += _unknown_keys(
                f"{path}.oauth.identity_provider",
                cast("Mapping[str, object]", provider),
                IDENTITY_PROVIDER_KEYS,
                parent_keys=OAUTH_KEYS,
            )
    if _lacks_oauth(entry):
        warnings.append(
            f"{path} has a `url`, but not `auth: oauth`: Hermes and chats do not log in to it. If the server "
            f"needs a login, add `auth: oauth`."
        )
    return tuple(warnings[:MAX_WARNINGS])


def misspelt_sections(names: Iterable[str]) -> tuple[str, ...]:
    """Return a warning for each top-level key that is almost the name of a section of this program."""
    present = list(names)
    missing_sections = [section for section in SECTIONS if section not in present]
    return tuple(
        f"config.yaml has a section `{_shorten(name)}`, which is ignored. Did you mean `{similar[0]}`?"
        for name in present
        if name not in SECTIONS and (similar := _similar(name, missing_sections, 0.85))
    )[:MAX_WARNINGS]


def _lacks_oauth(entry: Mapping[str, object]) -> bool:
    if not entry.get("url") or entry.get("enabled", True) is False or entry.get("auth") is not None:
        return False
    if entry.get("oauth") is not None:
        return True
    headers = entry.get("headers")
    names = (
        [str(name).lower() for name in cast("Mapping[object, object]", headers)]
        if isinstance(headers, Mapping)
        else []
    )
    return not any(part in name for name in names for part in _CREDENTIAL_HEADERS)


def _misplaced_keys(path: str, entry: Mapping[str, object]) -> Iterator[str]:
    """Yield a warning for each key of `oauth:` that is beside `url`."""
    for key in entry:
        if key in OAUTH_KEYS and key not in ENTRY_KEYS:
            yield f"{path}.{key} is ignored. Write it as {path}.oauth.{key}, in the section `oauth:`."


def _misspelt_keys(path: str, entry: Mapping[str, object]) -> Iterator[str]:
    """Yield a warning for each key that is almost a key of the entry or of its `oauth:`."""
    for key in entry:
        if key in ENTRY_KEYS or key in OAUTH_KEYS:
            continue
        if similar := _similar(key, (*ENTRY_KEYS, *_MISPLACED_OAUTH_KEYS), _CUTOFF):
            meant_key = similar[0]
            meant = f"`{meant_key}`" if meant_key in ENTRY_KEYS else f"`{meant_key}`, in the section `oauth:`"
            yield f"{path}.{_shorten(key)} is not known and is ignored. Did you mean {meant}?"


def _unknown_keys(
    path: str, members: Mapping[str, object], keys: Iterable[str], *, parent_keys: Iterable[str]
) -> Iterator[str]:
    """Yield a warning for each key that a section does not have. `parent_keys`: those of its parent."""
    known_keys, parent = tuple(keys), path.rpartition(".")[0]
    for key in members:
        if key not in known_keys and key in parent_keys:
            yield f"{path}.{key} is ignored. Write it as {parent}.{key}."
        elif key not in known_keys:
            similar = _similar(key, known_keys, 0.6)
            advice = (
                f"Did you mean `{similar[0]}`?"
                if similar
                else "Remove it, or see docs/configuration.md for the keys."
            )
            yield f"{path}.{_shorten(key)} is not known and is ignored. {advice}"


def _similar(key: object, candidates: Iterable[str], cutoff: float) -> list[str]:
    # A key of YAML may be a number. Comparing a long text takes long, and no known key is that long.
    text = str(key)[:_MAX_KEY_CHARS].lower()
    return get_close_matches(text.replace("-", "_").replace(" ", "_"), tuple(candidates), 1, cutoff)


def _shorten(key: object) -> str:
    text = str(key)
    return text if len(text) <= _MAX_KEY_CHARS else f"{text[:_MAX_KEY_CHARS]}…"

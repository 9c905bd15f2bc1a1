"""Values <-> the JSON documents of Hermes's files and of our own. RFC 6749 §5.1, RFC 7591 §3.2.1, RFC 8414.

What Hermes may have written is read with tolerance; what only we write is read strictly (`members`).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import fields, replace
from typing import cast

from hermes_mcp_auth_remote.errors import ServerError, StoreCorrupt, StoreUnwritable
from hermes_mcp_auth_remote.oauth.client import Client, client_from_document
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, authorization_server_from_document
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.urls import is_uri
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    format_scope,
    parse_scope,
    parse_seconds,
    string_member,
)
from hermes_mcp_auth_remote.store import MAX_FILE_BYTES
from hermes_mcp_auth_remote.store.credentials import Binding
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.values import Secret

# Ours, in client.json; Hermes's reader ignores what it does not know.
_NOT_REGISTERED_MEMBER = "hermes_mcp_auth_not_registered"

# Ours, in a binding; the fast path of `token` compares it (`peek`).
CONFIG_FILES_MEMBER = "config_files"

# Ours, in a binding, until the tokens that it speaks of are on the disk.
PREVIOUS_BINDING_MEMBER = "before"

# What the MCP SDK's OAuthClientInformationFull refuses to read with a value of another kind.
_URL_MEMBERS = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "jwks_uri")
_STRING_MEMBERS = ("scope", "client_name", "software_id", "software_version")
_INTEGER_MEMBERS = ("client_id_issued_at", "client_secret_expires_at")
_LIST_MEMBERS = ("grant_types", "response_types", "contacts")


def encode_document(document: Document) -> bytes:
    """Write a document on one line: indented, what a server nested deeply would grow a hundredfold.

    Raises StoreUnwritable where it could not be read again: above 1 MiB, or nested beyond what JSON takes.
    """
    try:
        data = json.dumps(document).encode()
    except RecursionError:
        data = None
    if data is None or len(data) > MAX_FILE_BYTES:
        raise StoreUnwritable(
            "What the server publishes or answers is too large to be stored, above 1 MiB.",
            "The server's operator has to mend this; report it to them.",
        )
    return data


def decode_document(data: bytes, path: str) -> Document:
    """Read a JSON object; raises StoreCorrupt naming the path, never the content."""
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        raise StoreCorrupt(f"{path} is not JSON.") from None
    if not isinstance(document, dict):
        raise StoreCorrupt(f"{path} holds JSON, but not an object.")
    return cast("Document", document)


def tokens_document(tokens: Tokens) -> Document:
    """Write tokens as the MCP SDK's OAuthToken plus Hermes's `expires_at` (epoch seconds).

    DPoP tokens are called so: Hermes then takes them for none, and could not use them anyway.
    """
    document: dict[str, object] = {"access_token": tokens.access_token.reveal(), "token_type": tokens.scheme}
    if tokens.expires_at is not None and tokens.obtained_at is not None:
        document["expires_in"] = max(int(tokens.expires_at - tokens.obtained_at), 0)
    if tokens.scope:
        document["scope"] = format_scope(tokens.scope)
    if tokens.refresh_token is not None:
        document["refresh_token"] = tokens.refresh_token.reveal()
    if tokens.expires_at is not None:
        document["expires_at"] = float(tokens.expires_at)
    return document


def read_tokens(document: Document, written_at: float, path: str) -> Tokens:
    """Read a tokens file of ours or of Hermes's; junk in it counts as missing.

    `written_at` is the file's mtime in epoch seconds: without `expires_at`, its `expires_in` counts from
    there. Raises StoreCorrupt where there is no usable access token.
    """
    access_token = string_member(document, "access_token")
    if access_token is None or not access_token.isascii() or not access_token.isprintable():
        raise StoreCorrupt(f"{path} holds no usable access token.")
    refresh_token, scope = string_member(document, "refresh_token"), string_member(document, "scope")
    expires_at, lifetime = (
        _parse_epoch_seconds(document.get("expires_at")),
        parse_seconds(document.get("expires_in")),
    )
    obtained_at = expires_at - lifetime if expires_at is not None and lifetime is not None else written_at
    if expires_at is None and lifetime is not None:
        expires_at = written_at + lifetime
    return Tokens(
        access_token=Secret(access_token),
        refresh_token=Secret(refresh_token) if refresh_token else None,
        scope=parse_scope(scope) or None if scope else None,
        expires_at=expires_at,
        obtained_at=obtained_at,
        scheme="DPoP" if (string_member(document, "token_type") or "").lower() == "dpop" else "Bearer",
    )


def _parse_epoch_seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def client_document(client: Client) -> Document:
    """Write a client as the MCP SDK's OAuthClientInformationFull, with the server's own members kept."""
    document = {name: value for name, value in client.document.items() if _matches_sdk_type(name, value)}
    document |= {
        "client_id": client.client_id,
        "redirect_uris": [uri for uri in client.redirect_uris if is_uri(uri)] or None,
        "grant_types": document.get("grant_types") or ["authorization_code", "refresh_token"],
        "response_types": document.get("response_types") or ["code"],
        "token_endpoint_auth_method": client.auth_method,
    }
    document.pop("client_secret", None)
    document.pop(_NOT_REGISTERED_MEMBER, None)
    if client.client_secret is not None:
        document["client_secret"] = client.client_secret.reveal()
    if client.secret_expires_at is not None:
        document["client_secret_expires_at"] = int(client.secret_expires_at)
    if not client.is_registered:
        document[_NOT_REGISTERED_MEMBER] = True
    # Later versions of Hermes drop the client where this is not what they compute.
    document.pop("issuer", None)
    return document


def _matches_sdk_type(name: str, value: object) -> bool:
    if name in _URL_MEMBERS:
        return isinstance(value, str) and value.startswith(("https://", "http://")) and len(value) > 8
    if name in _STRING_MEMBERS:
        return isinstance(value, str)
    if name in _INTEGER_MEMBERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if name in _LIST_MEMBERS:
        return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value))
    return True


def read_client(document: Document, path: str) -> Client:
    """Read a client file of ours or of Hermes's; raises StoreCorrupt."""
    try:
        client = client_from_document(document)
    except ServerError as error:
        raise StoreCorrupt(f"{path} holds no client_id.") from error
    return replace(client, is_registered=document.get(_NOT_REGISTERED_MEMBER) is not True)


def metadata_document(metadata: AuthorizationServer) -> Document:
    """Write authorization server metadata: what the server published, without what RFC 8414 has no use for.

    Its members are values and lists of values; anything nested is left out.
    """
    if metadata.document:
        flat = {name: value for name, value in metadata.document.items() if _is_flat(value)}
        return {**flat, "issuer": metadata.issuer}
    values = {field.name: getattr(metadata, field.name) for field in fields(metadata)}
    return {
        name: list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None and name not in {"document", "is_openid", "uses_default_endpoints"}
    }


def _is_flat(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return not any(isinstance(item, dict | list) for item in items)


def read_metadata(document: Document, path: str) -> AuthorizationServer:
    """Read a metadata file of ours or of Hermes's, every URL checked again; raises StoreCorrupt."""
    try:
        return authorization_server_from_document(document)
    except ServerError as error:
        raise StoreCorrupt(f"{path} is no authorization server metadata: {error}") from error


def access_token_fingerprint(tokens: Tokens | None) -> str | None:
    """Return what tells these tokens from others, and nothing about them."""
    if tokens is None:
        return None
    return hashlib.sha256(tokens.access_token.reveal().encode()).hexdigest()[:16]


def binding_document(
    binding: Binding, tokens: Tokens | None, previous_binding: Document | None = None
) -> Document:
    """Write a binding, and of which tokens it speaks; `before` is that of the tokens still on the disk."""
    scope = binding.requested_scope
    document: Document = {
        "version": FORMAT_VERSION,
        "server": binding.server_name,
        "server_url": binding.server_url,
        "issuer": binding.issuer,
        "client_id": binding.client_id,
        "resource": binding.resource,
        "requested_scope": None if scope is None else sorted(scope),
        "account": binding.account,
        "connected_at": binding.connected_at,
        "refreshed_at": binding.refreshed_at,
        "refresh_expires_at": binding.refresh_expires_at,
        "login_needed": binding.login_needed,
        CONFIG_FILES_MEMBER: binding.config_files,
        "tokens": access_token_fingerprint(tokens),
    }
    return document if previous_binding is None else {**document, PREVIOUS_BINDING_MEMBER: previous_binding}


def binding_for(document: Document, tokens: Tokens | None) -> Document:
    """Return what a binding's document says of these tokens: `before`, where a login was stored half-way."""
    before = document.get(PREVIOUS_BINDING_MEMBER)
    if not isinstance(before, dict) or matches_tokens(document, tokens):
        return document
    known = cast("Document", before)
    # Neither: somebody refreshed since, with what nobody can say. Whoever issued them is unknown then.
    return known if matches_tokens(known, tokens) else {**document, "issuer": ""}


def matches_tokens(binding: Document, tokens: Tokens | None) -> bool:
    """True where a binding's document speaks of these very tokens."""
    return binding.get("tokens") == access_token_fingerprint(tokens)


def with_config_files(document: Document, server_url: str, config_files: str) -> Document | None:
    """Return a binding's document with this identity of config.yaml and .env.

    None if it is of another address, or if a login was stored half-way.
    """
    if document.get("server_url") != server_url or PREVIOUS_BINDING_MEMBER in document:
        return None
    return {**document, CONFIG_FILES_MEMBER: config_files}


def read_binding(document: Document, tokens: Tokens | None, path: str) -> Binding:
    """Read a binding; raises StoreCorrupt.

    Where the tokens are others by now (Hermes refreshed, or somebody logged in there), what was said of the
    old ones does not count: neither `login_needed` nor `refresh_expires_at`.
    """
    members = DocumentReader(document, path)
    members.check_version()
    same = matches_tokens(document, tokens)
    config_files = document.get(CONFIG_FILES_MEMBER)
    return Binding(
        server_name=members.string("server"),
        server_url=members.string("server_url"),
        issuer=members.string("issuer"),
        client_id=members.string("client_id"),
        resource=members.optional_string("resource"),
        requested_scope=members.optional_string_set("requested_scope"),
        account=members.optional_string("account"),
        connected_at=members.optional_number("connected_at"),
        refreshed_at=members.optional_number("refreshed_at"),
        refresh_expires_at=members.optional_number("refresh_expires_at") if same else None,
        login_needed=members.optional_string("login_needed") if same else None,
        # Only a shortcut: a value that cannot be read costs one slow call, not the session.
        config_files=config_files if isinstance(config_files, str) else None,
    )

"""Convert between values and the JSON documents on disk. RFC 6749 §5.1, RFC 7591 §3.2.1, RFC 8414.

Reading is tolerant of documents that Hermes may have written. It is strict for documents that only this
program writes (`json_fields`).
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
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
from hermes_mcp_auth_remote.store.credentials import Binding, UnansweredClient
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.values import Secret

# This program's own member of client.json. Hermes ignores unknown members.
_NOT_REGISTERED_MEMBER = "hermes_mcp_auth_not_registered"

# A member of a binding. The fast path of the `token` command compares it (`fast_token`).
CONFIG_FILES_MEMBER = "config_files"

# A member of a binding. Earlier versions do not write it.
_NEEDED_SCOPE_MEMBER = "needed_scope"

# A member of a binding and of a login, which earlier versions do not write.
PUBLIC_ONLY_MEMBER = "public_only"

# A member of a binding, which earlier versions do not write: a client that the server may have forgotten.
_UNANSWERED_CLIENT_MEMBER = "unanswered_client"

# A member of a binding: the previous binding, until the tokens of the new binding are on disk.
PREVIOUS_BINDING_MEMBER = "before"

# The MCP SDK's OAuthClientInformationFull rejects these members if their value has another type.
_URL_MEMBERS = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "jwks_uri")
_STRING_MEMBERS = ("scope", "client_name", "software_id", "software_version")
_INTEGER_MEMBERS = ("client_id_issued_at", "client_secret_expires_at")
_LIST_MEMBERS = ("grant_types", "response_types", "contacts")


def encode_document(document: Document, limit_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Encode a document as JSON on one line; indentation could make a nested document 100 times larger.

    Raises StoreUnwritable if the document could not be read again: above the limit, or nested too deeply.
    """
    try:
        data = json.dumps(document).encode()
    except RecursionError:
        data = None
    if data is None or len(data) > limit_bytes:
        raise StoreUnwritable(
            f"The server's data is too large to be stored (above {limit_bytes // 1_048_576} MiB).",
            "This must be fixed by the server's operator; report it to them.",
        )
    return data


def decode_document(data: bytes, path: str) -> Document:
    """Parse a JSON object; raises StoreCorrupt, which names the path and never shows the content."""
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        raise StoreCorrupt(f"{path} is not JSON.") from None
    if not isinstance(document, dict):
        raise StoreCorrupt(f"{path} is not a JSON object.")
    return cast("Document", document)


def tokens_document(tokens: Tokens) -> Document:
    """Return tokens as the MCP SDK's OAuthToken plus Hermes's `expires_at` (epoch seconds).

    DPoP tokens keep `token_type: DPoP`. Hermes ignores such tokens, because it cannot use them.
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
    """Read tokens from a file of this program or of Hermes; an invalid optional member counts as missing.

    `written_at` is when the document was written (epoch seconds). If `expires_at` is missing, `expires_in`
    counts from then. Raises StoreCorrupt if there is no usable access token.
    """
    access_token = string_member(document, "access_token")
    if access_token is None or not access_token.isascii():
        raise StoreCorrupt(f"{path} contains no usable access token.")
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
    # A tuple, because each call would make the union of these types again.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def client_document(client: Client) -> Document:
    """Return a client as the MCP SDK's OAuthClientInformationFull, with the server's extra members."""
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
    # Later versions of Hermes drop the client if this member differs from the issuer that they compute.
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
    """Read a client from a file of this program or of Hermes; raises StoreCorrupt."""
    try:
        client = client_from_document(document)
    except ServerError as error:
        raise StoreCorrupt(f"{path} contains no client_id.") from error
    is_registered = document.get(_NOT_REGISTERED_MEMBER) is not True
    return client if client.is_registered == is_registered else replace(client, is_registered=is_registered)


def metadata_document(metadata: AuthorizationServer) -> Document:
    """Return the used members of the metadata that the authorization server published."""
    if metadata.document:
        return {**metadata.document, "issuer": metadata.issuer}
    values = {field.name: getattr(metadata, field.name) for field in fields(metadata)}
    return {
        name: list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None and name not in {"document", "is_openid", "uses_default_endpoints"}
    }


def read_metadata(document: Document, path: str) -> AuthorizationServer:
    """Read metadata from a file of this program or of Hermes and check every URL; raises StoreCorrupt."""
    try:
        return authorization_server_from_document(document)
    except ServerError as error:
        raise StoreCorrupt(f"{path} is not authorization server metadata: {error}") from error


def access_token_fingerprint(tokens: Tokens | None) -> str | None:
    """Return 16 hex digits that identify an access token without revealing it; None without tokens."""
    if tokens is None:
        return None
    return hashlib.sha256(tokens.access_token.reveal().encode()).hexdigest()[:16]


def binding_document(
    binding: Binding, tokens: Tokens | None, previous_binding: Document | None = None
) -> Document:
    """Return a binding with the fingerprint of its tokens.

    `previous_binding` is the binding of the tokens that are still on disk while a login is being stored.
    """
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
    if binding.needed_scope is not None:
        document = {**document, _NEEDED_SCOPE_MEMBER: sorted(binding.needed_scope)}
    if binding.is_public_only:
        document = {**document, PUBLIC_ONLY_MEMBER: True}
    if binding.unanswered_client is not None:
        document = {**document, _UNANSWERED_CLIENT_MEMBER: _unanswered_document(binding.unanswered_client)}
    return document if previous_binding is None else {**document, PREVIOUS_BINDING_MEMBER: previous_binding}


def _unanswered_document(unanswered_client: UnansweredClient) -> Document:
    replacement = unanswered_client.replacement
    return {
        "client_id": unanswered_client.client_id,
        "replacement": None if replacement is None else client_document(replacement),
    }


def _read_unanswered_client(value: object, path: str) -> UnansweredClient | None:
    """Read the mark of an unanswered client. An invalid one costs a registration, not the session."""
    if not isinstance(value, dict):
        return None
    document = cast("Document", value)
    client_id, replacement = string_member(document, "client_id"), document.get("replacement")
    if client_id is None:
        return None
    client = None
    if isinstance(replacement, dict):
        with suppress(StoreCorrupt):
            client = read_client(cast("Document", replacement), path)
    return UnansweredClient(client_id, client)


def binding_for(document: Document, tokens: Tokens | None) -> Document:
    """Return the binding of these tokens: `document`, or its previous binding if a login is half stored."""
    previous = document.get(PREVIOUS_BINDING_MEMBER)
    if not isinstance(previous, dict) or matches_tokens(document, tokens):
        return document
    previous_binding = cast("Document", previous)
    if matches_tokens(previous_binding, tokens):
        return previous_binding
    # Another program refreshed the tokens since. Their issuer is unknown.
    return {**document, "issuer": ""}


def matches_tokens(binding: Document, tokens: Tokens | None) -> bool:
    """True if a binding's document contains the fingerprint of these tokens."""
    return binding.get("tokens") == access_token_fingerprint(tokens)


def with_config_files(document: Document, server_url: str, config_files: str) -> Document | None:
    """Return a binding's document with this identity of config.yaml and .env.

    Returns None if the binding is for another server URL, or if a login is half stored.
    """
    if document.get("server_url") != server_url or PREVIOUS_BINDING_MEMBER in document:
        return None
    return {**document, CONFIG_FILES_MEMBER: config_files}


def read_binding(document: Document, tokens: Tokens | None, path: str) -> Binding:
    """Read a binding; raises StoreCorrupt.

    If the binding was written for other tokens (Hermes has refreshed, or a user has logged in there),
    `login_needed` and `refresh_expires_at` are None: they describe the old tokens.
    """
    reader = DocumentReader(document, path)
    reader.check_version()
    is_of_tokens = matches_tokens(document, tokens)
    config_files = document.get(CONFIG_FILES_MEMBER)
    return Binding(
        server_name=reader.string("server"),
        server_url=reader.string("server_url"),
        issuer=reader.string("issuer"),
        client_id=reader.string("client_id"),
        resource=reader.optional_string("resource"),
        requested_scope=reader.optional_string_set("requested_scope"),
        account=reader.optional_string("account"),
        connected_at=reader.optional_number("connected_at"),
        refreshed_at=reader.optional_number("refreshed_at"),
        refresh_expires_at=reader.optional_number("refresh_expires_at") if is_of_tokens else None,
        login_needed=reader.optional_string("login_needed") if is_of_tokens else None,
        # This member only enables the fast path. An invalid value costs one slow call, not the session.
        config_files=config_files if isinstance(config_files, str) else None,
        needed_scope=reader.optional_string_set(_NEEDED_SCOPE_MEMBER),
        is_public_only=document.get(PUBLIC_ONLY_MEMBER) is True,
        unanswered_client=_read_unanswered_client(document.get(_UNANSWERED_CLIENT_MEMBER), path),
    )

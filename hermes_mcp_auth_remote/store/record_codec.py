"""Convert the small records of a store to JSON documents and back.

They are the refresh failure and the token refusal of a session, the notices to users, and the admitted users.
Reading raises StoreCorrupt for anything that this module does not write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TypeVar, cast

from hermes_mcp_auth_remote.errors import StoreCorrupt, clean_server_message
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.store.protocol import Notice, Person
from hermes_mcp_auth_remote.values import CredentialKey

T = TypeVar("T")


def refresh_failure_document(tokens: Tokens, failure: RefreshFailure) -> Document:
    """Return the last refresh failure of these tokens."""
    members = asdict(failure)
    # Earlier versions read the name of this member.
    members["server_words"] = members.pop("server_message")
    return {"version": FORMAT_VERSION, "tokens": _token_pair_fingerprint(tokens), **members}


def read_refresh_failure(document: Document, tokens: Tokens, path: str) -> RefreshFailure | None:
    """Read a refresh failure; None if it is of other tokens."""
    reader = DocumentReader(document, path)
    reader.check_version()
    if reader.string("tokens") != _token_pair_fingerprint(tokens):
        return None
    return RefreshFailure(
        first_at=reader.number("first_at"),
        last_at=reader.number("last_at"),
        failures=int(reader.number("failures")),
        in_phase=int(reader.number("in_phase")),
        was_alive=reader.boolean("was_alive"),
        is_final=reader.boolean("is_final"),
        message=reader.string("message"),
        advice=reader.string("advice"),
        kind=reader.string("kind"),
        error=reader.optional_string("error"),
        server_message=clean_server_message(reader.string("server_words")),
        unauthorized_at=reader.optional_number("unauthorized_at"),
        is_answered=reader.boolean("is_answered"),
    )


def token_refusal_document(tokens: Tokens, refusal: TokenRefusal) -> Document:
    """Return that a server refuses these tokens."""
    return {"version": FORMAT_VERSION, "tokens": _token_pair_fingerprint(tokens), **asdict(refusal)}


def read_token_refusal(document: Document, tokens: Tokens, path: str) -> TokenRefusal | None:
    """Read a token refusal; None if it is of other tokens."""
    reader = DocumentReader(document, path)
    reader.check_version()
    if reader.string("tokens") != _token_pair_fingerprint(tokens):
        return None
    return TokenRefusal(
        refreshes=max(int(reader.number("refreshes")), 1),
        first_at=reader.number("first_at"),
        last_at=reader.number("last_at"),
        is_refused=reader.boolean("is_refused"),
    )


def _token_pair_fingerprint(tokens: Tokens) -> str:
    """Return 16 hex digits that identify access and refresh token without revealing them.

    A new login may return the same access token with another refresh token.
    """
    refresh_token = tokens.refresh_token.reveal() if tokens.refresh_token is not None else ""
    pair = f"{tokens.access_token.reveal()} {refresh_token}"
    return hashlib.sha256(pair.encode()).hexdigest()[:16]


def notices_document(notices: Iterable[Notice]) -> Document:
    """Return all notices to users."""
    return {"version": FORMAT_VERSION, "notices": [_notice_document(notice) for notice in notices]}


def read_notices(document: Document, path: str) -> list[Notice]:
    """Read all notices to users."""
    return _read_list(document, "notices", _read_notice, path)


def _notice_document(notice: Notice) -> Document:
    document: dict[str, object] = asdict(notice)
    # Earlier versions read these member names.
    document["key"] = {"server": notice.key.server_name, "owner": notice.key.owner}
    return document


def _read_notice(reader: DocumentReader) -> Notice:
    key = reader.child("key")
    return Notice(
        reader.string("platform"),
        reader.string("user"),
        CredentialKey(key.string("server"), key.optional_string("owner")),
        reader.boolean("is_over"),
        reader.number("at"),
        reader.optional_number("of_tokens"),
        reader.string("message"),
    )


def people_document(people: Iterable[Person]) -> Document:
    """Return all admitted users."""
    return {"version": FORMAT_VERSION, "people": [asdict(person) for person in people]}


def read_people(document: Document, path: str) -> list[Person]:
    """Read all admitted users."""
    return _read_list(document, "people", _read_person, path)


def _read_person(reader: DocumentReader) -> Person:
    return Person(
        reader.string("platform"),
        reader.string("user_id"),
        reader.boolean("is_admin"),
        reader.string("admitted_by"),
        reader.number("admitted_at"),
    )


def _read_list(
    document: Document, member: str, read_item: Callable[[DocumentReader], T], path: str
) -> list[T]:
    reader = DocumentReader(document, path)
    reader.check_version()
    items = reader.document.get(member)
    if not isinstance(items, list):
        raise StoreCorrupt(f"{path}: `{member}` is missing or has the wrong type.")
    return [read_item(DocumentReader(item, path)) for item in cast("list[object]", items)]

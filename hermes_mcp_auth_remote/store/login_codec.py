"""A login as a JSON object of our own, and back; without its secrets once it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    DeviceRefused,
    StoreCorrupt,
    TokenRefused,
    clean_words,
)
from hermes_mcp_auth_remote.login import Login, Status
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import DeviceRequest, Pending
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import metadata_document, read_metadata
from hermes_mcp_auth_remote.store.json_fields import VERSION, Members
from hermes_mcp_auth_remote.values import Key, Origin, Secret

# A program that knows no devices must not take such a login for one that waits for a paste.
DEVICE_VERSION = 2
# Errors whose message quoted the server in older versions.
_QUOTING_CODES = frozenset({TokenRefused.code, DeviceRefused.code, AuthorizationDenied.code})
_SECRET_MEMBERS = frozenset({"client_secret", "registration_access_token"})


def without_secrets(login: Login) -> Login:
    """Return a login without what nobody needs once it is over: its URL, codes, state and secrets."""
    client = login.request.client
    client = replace(
        client,
        client_secret=None if client.client_secret is None else Secret(""),
        document={name: value for name, value in client.document.items() if name not in _SECRET_MEMBERS},
    )
    # The URL carries the state.
    request = replace(login.request, url="", state=Secret(""), code_verifier=Secret(""), client=client)
    return replace(login, request=request, device=_without_codes(login.device, client), polled_by=None)


def _without_codes(pending: Pending | None, client: Client) -> Pending | None:
    if pending is None:
        return None
    authorization = replace(
        pending.request.authorization,
        device_code=Secret(""),
        user_code="",
        verification_uri_complete=None,
    )
    return replace(pending, request=replace(pending.request, authorization=authorization, client=client))


def login_document(login: Login) -> Document:
    """Write a login as a JSON object of our own."""
    request, client, origin = login.request, login.request.client, login.origin
    return {
        "version": VERSION if login.device is None else DEVICE_VERSION,
        "id": login.id,
        "server": login.key.server,
        "owner": login.key.owner,
        "server_url": login.server_url,
        "origin": {
            "platform": origin.platform,
            "chat": origin.chat,
            "thread": origin.thread,
            "user": origin.user,
            "bot": origin.bot,
        },
        "begun_at": login.begun_at,
        "expires_at": login.expires_at,
        "status": login.status,
        "added_scope": sorted(login.added_scope),
        "pastes": login.pastes,
        "failure": None if login.failure is None else list(login.failure),
        "failure_code": login.failure_code,
        "authorization_server": metadata_document(login.authorization_server),
        "request": {
            "url": request.url,
            "state": request.state.reveal(),
            "code_verifier": request.code_verifier.reveal(),
            "redirect_uri": request.redirect_uri,
            "issuer": request.issuer,
            "iss_required": request.iss_required,
            "token_endpoint": request.token_endpoint,
            "authorization_endpoint": request.authorization_endpoint,
            "resource": request.resource,
            "scope": None if request.scope is None else sorted(request.scope),
            "trusted_issuers": sorted(request.trusted_issuers),
            "lifetime_seconds": request.lifetime_seconds,
            "dpop": request.dpop,
        },
        "client": {
            "client_id": client.client_id,
            "client_secret": None if client.client_secret is None else client.client_secret.reveal(),
            "method": client.method,
            "redirect_uris": list(client.redirect_uris),
            "secret_expires_at": client.secret_expires_at,
            "registered": client.registered,
            "document": client.document,
        },
        **({} if login.device is None else {"device": _device_document(login.device)}),
        **({} if login.polled_by is None else {"polled_by": login.polled_by}),
        **({"messages": list(login.messages)} if login.messages else {}),
        # Tells a record from one of an older version, which has them in the message.
        **({} if login.failure is None else {"failure_words": login.failure_words}),
    }


def _device_document(pending: Pending) -> Document:
    # The rest of its request is the authorization request's: the same client asks at the same server.
    authorization = pending.request.authorization
    return {
        "device_code": authorization.device_code.reveal(),
        "user_code": authorization.user_code,
        "verification_uri": authorization.verification_uri,
        "verification_uri_complete": authorization.verification_uri_complete,
        "lifetime_seconds": authorization.lifetime_seconds,
        "first_interval_seconds": authorization.interval_seconds,
        "expires_at": pending.request.expires_at,
        "next_at": pending.next_at,
        "interval_seconds": pending.interval_seconds,
        "failures": pending.failures,
    }


def read_login(document: Mapping[str, object], path: str) -> Login:
    """Read a login; raises StoreCorrupt for anything that we did not write."""
    members = Members(document, path)
    members.check_version(VERSION, DEVICE_VERSION)
    origin, failure = members.part("origin"), members.maybe_texts("failure")
    status = members.text("status")
    if status not in get_args(Status) or (failure is not None and len(failure) != 2):
        raise StoreCorrupt(f"{path} holds a status or a failure that there is not.")
    reason, words = _read_failure(members, failure)
    request = _read_request(members.part("request"), _read_client(members.part("client")))
    device = members.all.get("device")
    return Login(
        id=members.text("id"),
        key=Key(members.text("server"), members.maybe_text("owner")),
        server_url=members.text("server_url"),
        request=request,
        authorization_server=read_metadata(members.part("authorization_server").all, path),
        origin=Origin(
            origin.text("platform"),
            origin.text("chat"),
            origin.text("thread"),
            origin.text("user"),
            origin.maybe_text("bot") or "",
        ),
        begun_at=members.number("begun_at"),
        expires_at=members.number("expires_at"),
        status=cast("Status", status),
        added_scope=frozenset(members.texts("added_scope")),
        pastes=int(members.number("pastes")),
        failure=reason,
        failure_code=members.maybe_text("failure_code"),
        failure_words=words,
        device=None if device is None else _read_device(members.part("device"), request),
        polled_by=members.maybe_text("polled_by"),
        messages=members.maybe_texts("messages") or (),
    )


def _read_failure(members: Members, failure: tuple[str, ...] | None) -> tuple[tuple[str, str] | None, str]:
    """Return message and advice, and what the server said beside them."""
    words = members.maybe_text("failure_words")
    if failure is None:
        return None, ""
    message, advice = failure
    if words is None and members.maybe_text("failure_code") in _QUOTING_CODES:
        return ("The provider refused this login.", advice), clean_words(message)
    return (message, advice), clean_words(words or "")


def _read_device(members: Members, request: AuthorizationRequest) -> Pending:
    authorization = DeviceAuthorization(
        Secret(members.text("device_code")),
        members.text("user_code"),
        members.text("verification_uri"),
        members.maybe_text("verification_uri_complete"),
        members.number("lifetime_seconds"),
        members.number("first_interval_seconds"),
    )
    asked = DeviceRequest(
        authorization,
        request.client,
        request.issuer,
        request.token_endpoint,
        members.number("expires_at"),
        request.resource,
        request.scope,
    )
    failures = int(members.number("failures"))
    return Pending(asked, members.number("next_at"), members.number("interval_seconds"), failures)


def _read_request(members: Members, client: Client) -> AuthorizationRequest:
    return AuthorizationRequest(
        url=members.text("url"),
        state=Secret(members.text("state")),
        code_verifier=Secret(members.text("code_verifier")),
        redirect_uri=members.text("redirect_uri"),
        client=client,
        issuer=members.text("issuer"),
        iss_required=members.flag("iss_required"),
        token_endpoint=members.text("token_endpoint"),
        authorization_endpoint=members.text("authorization_endpoint"),
        resource=members.maybe_text("resource"),
        scope=members.maybe_set("scope"),
        trusted_issuers=frozenset(members.texts("trusted_issuers")),
        lifetime_seconds=members.maybe_number("lifetime_seconds"),
        dpop=members.all.get("dpop") is True,
    )


def _read_client(members: Members) -> Client:
    secret = members.maybe_text("client_secret")
    return Client(
        client_id=members.text("client_id"),
        client_secret=None if secret is None else Secret(secret),
        method=members.text("method"),
        redirect_uris=members.texts("redirect_uris"),
        secret_expires_at=members.maybe_number("secret_expires_at"),
        registered=members.flag("registered"),
        document=members.part("document").all,
    )

"""A login as a JSON object of our own, and back; without its secrets once it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    DeviceAuthorizationError,
    StoreCorrupt,
    TokenError,
    clean_server_message,
)
from hermes_mcp_auth_remote.login import Login, LoginStatus
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import DevicePollParameters, PollState
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import metadata_document, read_metadata
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret

# A program that knows no devices must not take such a login for one that waits for a paste.
DEVICE_FORMAT_VERSION = 2
# Errors whose message quoted the server in older versions.
_QUOTING_CODES = frozenset({TokenError.code, DeviceAuthorizationError.code, AuthorizationDenied.code})
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
    return replace(
        login, request=request, poll_state=_without_codes(login.poll_state, client), polled_by=None
    )


def _without_codes(pending: PollState | None, client: Client) -> PollState | None:
    if pending is None:
        return None
    authorization = replace(
        pending.parameters.authorization,
        device_code=Secret(""),
        user_code="",
        verification_uri_complete=None,
    )
    return replace(
        pending, parameters=replace(pending.parameters, authorization=authorization, client=client)
    )


def login_document(login: Login) -> Document:
    """Write a login as a JSON object of our own."""
    request, client, origin = login.request, login.request.client, login.origin
    return {
        "version": FORMAT_VERSION if login.poll_state is None else DEVICE_FORMAT_VERSION,
        "id": login.id,
        "server": login.key.server_name,
        "owner": login.key.owner,
        "server_url": login.server_url,
        "origin": {
            "platform": origin.platform,
            "chat": origin.chat_id,
            "thread": origin.thread_id,
            "user": origin.user_id,
            "bot": origin.bot_id,
        },
        "begun_at": login.started_at,
        "expires_at": login.expires_at,
        "status": login.status,
        "added_scope": sorted(login.added_scope),
        "pastes": login.paste_attempts,
        "failure": None if login.failure is None else list(login.failure),
        "failure_code": login.failure_code,
        "authorization_server": metadata_document(login.authorization_server),
        "request": {
            "url": request.url,
            "state": request.state.reveal(),
            "code_verifier": request.code_verifier.reveal(),
            "redirect_uri": request.redirect_uri,
            "issuer": request.issuer,
            "iss_required": request.is_iss_required,
            "token_endpoint": request.token_endpoint,
            "authorization_endpoint": request.authorization_endpoint,
            "resource": request.resource,
            "scope": None if request.scope is None else sorted(request.scope),
            "trusted_issuers": sorted(request.trusted_issuers),
            "lifetime_seconds": request.lifetime_seconds,
            "dpop": request.uses_dpop,
        },
        "client": {
            "client_id": client.client_id,
            "client_secret": None if client.client_secret is None else client.client_secret.reveal(),
            "method": client.auth_method,
            "redirect_uris": list(client.redirect_uris),
            "secret_expires_at": client.secret_expires_at,
            "registered": client.is_registered,
            "document": client.document,
        },
        **({} if login.poll_state is None else {"device": _device_document(login.poll_state)}),
        **({} if login.polled_by is None else {"polled_by": login.polled_by}),
        **({"messages": list(login.message_ids)} if login.message_ids else {}),
        # Tells a record from one of an older version, which has them in the message.
        **({} if login.failure is None else {"failure_words": login.server_message}),
    }


def _device_document(pending: PollState) -> Document:
    # The rest of its request is the authorization request's: the same client asks at the same server.
    authorization = pending.parameters.authorization
    return {
        "device_code": authorization.device_code.reveal(),
        "user_code": authorization.user_code,
        "verification_uri": authorization.verification_uri,
        "verification_uri_complete": authorization.verification_uri_complete,
        "lifetime_seconds": authorization.lifetime_seconds,
        "first_interval_seconds": authorization.interval_seconds,
        "expires_at": pending.parameters.expires_at,
        "next_at": pending.next_at,
        "interval_seconds": pending.interval_seconds,
        "failures": pending.failures,
    }


def read_login(document: Mapping[str, object], path: str) -> Login:
    """Read a login; raises StoreCorrupt for anything that we did not write."""
    members = DocumentReader(document, path)
    members.check_version(FORMAT_VERSION, DEVICE_FORMAT_VERSION)
    origin, failure = members.child("origin"), members.optional_string_list("failure")
    status = members.string("status")
    if status not in get_args(LoginStatus) or (failure is not None and len(failure) != 2):
        raise StoreCorrupt(f"{path} holds a status or a failure that there is not.")
    reason, words = _read_failure(members, failure)
    request = _read_request(members.child("request"), _read_client(members.child("client")))
    device = members.document.get("device")
    return Login(
        id=members.string("id"),
        key=CredentialKey(members.string("server"), members.optional_string("owner")),
        server_url=members.string("server_url"),
        request=request,
        authorization_server=read_metadata(members.child("authorization_server").document, path),
        origin=Origin(
            origin.string("platform"),
            origin.string("chat"),
            origin.string("thread"),
            origin.string("user"),
            origin.optional_string("bot") or "",
        ),
        started_at=members.number("begun_at"),
        expires_at=members.number("expires_at"),
        status=cast("LoginStatus", status),
        added_scope=frozenset(members.string_list("added_scope")),
        paste_attempts=int(members.number("pastes")),
        failure=reason,
        failure_code=members.optional_string("failure_code"),
        server_message=words,
        poll_state=None if device is None else _read_device(members.child("device"), request),
        polled_by=members.optional_string("polled_by"),
        message_ids=members.optional_string_list("messages") or (),
    )


def _read_failure(
    members: DocumentReader, failure: tuple[str, ...] | None
) -> tuple[tuple[str, str] | None, str]:
    """Return message and advice, and what the server said beside them."""
    words = members.optional_string("failure_words")
    if failure is None:
        return None, ""
    message, advice = failure
    if words is None and members.optional_string("failure_code") in _QUOTING_CODES:
        return ("The provider refused this login.", advice), clean_server_message(message)
    return (message, advice), clean_server_message(words or "")


def _read_device(members: DocumentReader, request: AuthorizationRequest) -> PollState:
    authorization = DeviceAuthorization(
        Secret(members.string("device_code")),
        members.string("user_code"),
        members.string("verification_uri"),
        members.optional_string("verification_uri_complete"),
        members.number("lifetime_seconds"),
        members.number("first_interval_seconds"),
    )
    asked = DevicePollParameters(
        authorization,
        request.client,
        request.issuer,
        request.token_endpoint,
        members.number("expires_at"),
        request.resource,
        request.scope,
    )
    failures = int(members.number("failures"))
    return PollState(asked, members.number("next_at"), members.number("interval_seconds"), failures)


def _read_request(members: DocumentReader, client: Client) -> AuthorizationRequest:
    return AuthorizationRequest(
        url=members.string("url"),
        state=Secret(members.string("state")),
        code_verifier=Secret(members.string("code_verifier")),
        redirect_uri=members.string("redirect_uri"),
        client=client,
        issuer=members.string("issuer"),
        is_iss_required=members.boolean("iss_required"),
        token_endpoint=members.string("token_endpoint"),
        authorization_endpoint=members.string("authorization_endpoint"),
        resource=members.optional_string("resource"),
        scope=members.optional_string_set("scope"),
        trusted_issuers=frozenset(members.string_list("trusted_issuers")),
        lifetime_seconds=members.optional_number("lifetime_seconds"),
        uses_dpop=members.document.get("dpop") is True,
    )


def _read_client(members: DocumentReader) -> Client:
    secret = members.optional_string("client_secret")
    return Client(
        client_id=members.string("client_id"),
        client_secret=None if secret is None else Secret(secret),
        auth_method=members.string("method"),
        redirect_uris=members.string_list("redirect_uris"),
        secret_expires_at=members.optional_number("secret_expires_at"),
        is_registered=members.boolean("registered"),
        document=members.child("document").document,
    )

"""Convert a login to its JSON document and back. The document of a login that is over has no secrets."""

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
from hermes_mcp_auth_remote.login import Login, LoginStatus, PromptReason
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import DevicePollParameters, PollState
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import PUBLIC_ONLY_MEMBER, metadata_document, read_metadata
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.values import BootTime, CredentialKey, Origin, Secret

# Older versions do not know device logins. They must not treat one as a login that waits for a paste.
DEVICE_FORMAT_VERSION = 2
# In records of older versions, the messages of these errors quote the server.
_QUOTING_CODES = frozenset({TokenError.code, DeviceAuthorizationError.code, AuthorizationDenied.code})
_SECRET_MEMBERS = frozenset({"client_secret", "registration_access_token"})


def without_secrets(login: Login) -> Login:
    """Return a login without its URL, codes, state and secrets; a login that is over needs none of them."""
    client = login.request.client
    client = replace(
        client,
        client_secret=None if client.client_secret is None else Secret(""),
        document={name: value for name, value in client.document.items() if name not in _SECRET_MEMBERS},
    )
    # The URL contains the state.
    request = replace(login.request, url="", state=Secret(""), code_verifier=Secret(""), client=client)
    return replace(
        login, request=request, poll_state=_without_codes(login.poll_state, client), polled_by=None
    )


def _without_codes(poll_state: PollState | None, client: Client) -> PollState | None:
    if poll_state is None:
        return None
    authorization = replace(
        poll_state.parameters.authorization,
        device_code=Secret(""),
        user_code="",
        verification_uri_complete=None,
    )
    return replace(
        poll_state, parameters=replace(poll_state.parameters, authorization=authorization, client=client)
    )


def login_document(login: Login) -> Document:
    """Return a login as a JSON object, which `read_login` reads."""
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
        **({"client_reused": True} if login.is_client_reused else {}),
        **({"retried": sorted(login.retried_errors)} if login.retried_errors else {}),
        **({"messages": list(login.message_ids)} if login.message_ids else {}),
        **({} if login.prompt_reason == "unknown" else {"reason": login.prompt_reason}),
        **({PUBLIC_ONLY_MEMBER: True} if login.is_public_only else {}),
        **(
            {}
            if login.deadline is None
            else {"deadline": {"boot": login.deadline.boot_id, "seconds": login.deadline.seconds}}
        ),
        # Older versions quote the server in the message of `failure` and do not write this member.
        **({} if login.failure is None else {"failure_words": login.server_message}),
    }


def _device_document(poll_state: PollState) -> Document:
    # The other parameters equal those of the authorization request: same client, same server.
    authorization = poll_state.parameters.authorization
    return {
        "device_code": authorization.device_code.reveal(),
        "user_code": authorization.user_code,
        "verification_uri": authorization.verification_uri,
        "verification_uri_complete": authorization.verification_uri_complete,
        "lifetime_seconds": authorization.lifetime_seconds,
        "first_interval_seconds": authorization.interval_seconds,
        "expires_at": poll_state.parameters.expires_at,
        "next_at": poll_state.next_at,
        "interval_seconds": poll_state.interval_seconds,
        "failures": poll_state.failures,
    }


def read_login(document: Mapping[str, object], path: str) -> Login:
    """Read a login; raises StoreCorrupt for anything that `login_document` does not write."""
    reader = DocumentReader(document, path)
    reader.check_version(FORMAT_VERSION, DEVICE_FORMAT_VERSION)
    origin, failure = reader.child("origin"), reader.optional_string_list("failure")
    status = reader.string("status")
    if status not in get_args(LoginStatus) or (failure is not None and len(failure) != 2):
        raise StoreCorrupt(f"{path} contains an invalid status or failure.")
    message_and_advice, server_message = _read_failure(reader, failure)
    request = _read_request(reader.child("request"), _read_client(reader.child("client")))
    device = reader.document.get("device")
    return Login(
        id=reader.string("id"),
        key=CredentialKey(reader.string("server"), reader.optional_string("owner")),
        server_url=reader.string("server_url"),
        request=request,
        authorization_server=read_metadata(reader.child("authorization_server").document, path),
        origin=Origin(
            origin.string("platform"),
            origin.string("chat"),
            origin.string("thread"),
            origin.string("user"),
            origin.optional_string("bot") or "",
        ),
        started_at=reader.number("begun_at"),
        expires_at=reader.number("expires_at"),
        status=cast("LoginStatus", status),
        added_scope=frozenset(reader.string_list("added_scope")),
        paste_attempts=int(reader.number("pastes")),
        failure=message_and_advice,
        failure_code=reader.optional_string("failure_code"),
        server_message=server_message,
        poll_state=None if device is None else _read_device(reader.child("device"), request),
        polled_by=reader.optional_string("polled_by"),
        message_ids=reader.optional_string_list("messages") or (),
        prompt_reason=_read_prompt_reason(reader.document.get("reason")),
        is_public_only=reader.document.get(PUBLIC_ONLY_MEMBER) is True,
        deadline=_read_deadline(reader),
        is_client_reused=reader.document.get("client_reused") is True,
        retried_errors=frozenset(reader.optional_string_list("retried") or ()),
    )


def _read_prompt_reason(value: object) -> PromptReason:
    # Another version may know other reasons. The reason changes only one sentence, so none is refused.
    return cast("PromptReason", value) if value in get_args(PromptReason) else "unknown"


def _read_deadline(reader: DocumentReader) -> BootTime | None:
    if reader.document.get("deadline") is None:
        return None
    deadline = reader.child("deadline")
    return BootTime(deadline.string("boot"), deadline.number("seconds"))


def _read_failure(
    reader: DocumentReader, failure: tuple[str, ...] | None
) -> tuple[tuple[str, str] | None, str]:
    """Return message and advice of a failure, and the server's own message."""
    server_message = reader.optional_string("failure_words")
    if failure is None:
        return None, ""
    message, advice = failure
    if server_message is None and reader.optional_string("failure_code") in _QUOTING_CODES:
        return ("The provider refused this login.", advice), clean_server_message(message)
    return (message, advice), clean_server_message(server_message or "")


def _read_device(reader: DocumentReader, request: AuthorizationRequest) -> PollState:
    authorization = DeviceAuthorization(
        Secret(reader.string("device_code")),
        reader.string("user_code"),
        reader.string("verification_uri"),
        reader.optional_string("verification_uri_complete"),
        reader.number("lifetime_seconds"),
        reader.number("first_interval_seconds"),
    )
    parameters = DevicePollParameters(
        authorization,
        request.client,
        request.issuer,
        request.token_endpoint,
        reader.number("expires_at"),
        request.resource,
        request.scope,
    )
    failures = int(reader.number("failures"))
    return PollState(parameters, reader.number("next_at"), reader.number("interval_seconds"), failures)


def _read_request(reader: DocumentReader, client: Client) -> AuthorizationRequest:
    return AuthorizationRequest(
        url=reader.string("url"),
        state=Secret(reader.string("state")),
        code_verifier=Secret(reader.string("code_verifier")),
        redirect_uri=reader.string("redirect_uri"),
        client=client,
        issuer=reader.string("issuer"),
        is_iss_required=reader.boolean("iss_required"),
        token_endpoint=reader.string("token_endpoint"),
        authorization_endpoint=reader.string("authorization_endpoint"),
        resource=reader.optional_string("resource"),
        scope=reader.optional_string_set("scope"),
        trusted_issuers=frozenset(reader.string_list("trusted_issuers")),
        lifetime_seconds=reader.optional_number("lifetime_seconds"),
        uses_dpop=reader.document.get("dpop") is True,
    )


def _read_client(reader: DocumentReader) -> Client:
    secret = reader.optional_string("client_secret")
    return Client(
        client_id=reader.string("client_id"),
        client_secret=None if secret is None else Secret(secret),
        auth_method=reader.string("method"),
        redirect_uris=reader.string_list("redirect_uris"),
        secret_expires_at=reader.optional_number("secret_expires_at"),
        is_registered=reader.boolean("registered"),
        document=reader.child("document").document,
    )

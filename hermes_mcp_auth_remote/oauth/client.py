"""Who we are: client registration and client authentication. RFC 7591, RFC 6749 §2.3, RFC 7523 §2.2, CIMD."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote_plus, urlsplit, urlunsplit

from hermes_mcp_auth_remote.errors import ClientIdNeeded, RegistrationRefused, UnreadableAnswer
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token_errors import (
    UNKNOWN_ERROR,
    canonical_error,
    error_code,
    server_words,
)
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host, is_uri
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    Exchange,
    Form,
    Headers,
    Request,
    Response,
    lifetime_seconds,
    post_json,
    read_json_object,
    scope_text,
    text_member,
    texts_member,
)
from hermes_mcp_auth_remote.values import Secret

REGISTRATION = "client registration"
# Of a list; we register one.
MAX_REDIRECT_URIS = 100
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Signer = Callable[[str, str], Secret]
"""Takes a client_id and an audience (the issuer), returns a signed client assertion (RFC 7523 §2.2)."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client as one authorization server knows it (RFC 7591 section 3.2.1).

    `method` is the token_endpoint_auth_method; `secret_expires_at` is in epoch seconds, None for never;
    `document` is the whole answer, as stored. `registered` is False for a client that the operator
    configured or whose id is a client ID metadata document's URL.
    """

    client_id: str
    client_secret: Secret | None = None
    method: str = "none"
    redirect_uris: tuple[str, ...] = ()
    secret_expires_at: float | None = None
    registered: bool = False
    document: Document = field(default_factory=dict[str, object], repr=False)


def configured_client(
    server: AuthorizationServer,
    client_id: str,
    client_secret: Secret | None,
    method: str | None,
    redirect_uri: str,
) -> Client:
    """Build the client that the operator registered by hand."""
    if method is None:
        offered = server.token_endpoint_auth_methods_supported
        if client_secret is None:
            method = "none"
        elif offered is None or "client_secret_basic" in offered:
            # RFC 8414 section 2: "If omitted, the default is client_secret_basic".
            method = "client_secret_basic"
        else:
            method = "client_secret_post"
    return Client(client_id, client_secret, method, (redirect_uri,), document={"client_name": ""})


def metadata_document_client(url: str, redirect_uri: str, *, signs: bool = False) -> Client:
    """Build the client whose id is its metadata's URL (draft-ietf-oauth-client-id-metadata-document)."""
    return Client(url, None, "private_key_jwt" if signs else "none", (redirect_uri,))


def registration_request(
    server: AuthorizationServer,
    redirect_uri: str,
    *,
    client_name: str,
    scope: Iterable[str] = (),
    method: str | None = None,
    application_type: str | None = None,
    device: bool = False,
) -> Request:
    """Build the registration request (RFC 7591 section 2); raises ClientIdNeeded where there is no endpoint.

    `application_type` follows the redirect URI: native for loopback, web for https (MCP 2026-07-28). With
    `device` the device grant is asked for, too; oidc-provider refuses that where it does not offer it.
    """
    if server.registration_endpoint is None:
        # Never a guessed /register (quirk 14).
        raise ClientIdNeeded(
            f"{host_of(server.issuer)} does not let clients register themselves.",
            f"Register a client there by hand with the redirect URI {redirect_uri}, then set "
            "`oauth.client_id` (and `oauth.client_secret`, if you are given one) for this server.",
        )
    native = is_loopback_host(host_of(redirect_uri))
    document: dict[str, object] = {
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "grant_types": _grants(device=device),
        "response_types": ["code"],
        "token_endpoint_auth_method": method or _wanted_method(server),
        "application_type": application_type or ("native" if native else "web"),
    }
    if wanted := scope_text(scope):
        document["scope"] = wanted
    return post_json(server.registration_endpoint, REGISTRATION, document)


def offers_device(server: AuthorizationServer) -> bool:
    """True where the server has a device endpoint, and its list of grants, if it has one, says so too."""
    grants = server.grant_types_supported
    return server.device_authorization_endpoint is not None and (grants is None or DEVICE_GRANT in grants)


def _grants(*, device: bool) -> list[str]:
    return ["authorization_code", "refresh_token", *([DEVICE_GRANT] if device else [])]


def _wanted_method(server: AuthorizationServer) -> str:
    # A native app keeps no secret (RFC 8252 section 8.5); a server that offers no such thing decides.
    offered = server.token_endpoint_auth_methods_supported or ("none",)
    preferred = ("none", "client_secret_post", "client_secret_basic")
    return next((method for method in preferred if method in offered), "none")


def read_registration_response(
    response: Response, server: AuthorizationServer, redirect_uri: str, *, device: bool = False
) -> Client:
    """Read a registration answer; raises RegistrationRefused or UnreadableAnswer.

    What was asked for counts where the answer leaves it out.
    """
    host = host_of(server.issuer)
    if not response.ok:
        raise _refusal(response, host, redirect_uri)
    document = read_json_object(response.body, f"answer to the {REGISTRATION}")
    client_id = text_member(document, "client_id")
    if client_id is None:
        raise UnreadableAnswer(f"{host} answered the {REGISTRATION} without a client_id.")
    answered = texts_member(document, "redirect_uris", MAX_REDIRECT_URIS)
    if answered and redirect_uri not in answered:
        raise RegistrationRefused(
            f"{host} registered another redirect URI than the one that was asked for.",
            "Register a client there by hand and set `oauth.client_id` and `oauth.redirect_uri`.",
        )
    # `document` keeps what Hermes's own reader requires, whatever the server left out.
    grants = texts_member(document, "grant_types") or _grants(device=device)
    kept = {"redirect_uris": list(answered or (redirect_uri,)), "grant_types": list(grants)}
    return replace(client_from_document({**document, **kept}), registered=True)


def client_from_document(document: Document) -> Client:
    """Read a client information document (an answer, or `<s>.client.json`); raises UnreadableAnswer."""
    client_id = text_member(document, "client_id")
    if client_id is None:
        raise UnreadableAnswer("The client information holds no client_id.")
    secret = text_member(document, "client_secret")
    # A secret although "none" was asked for (quirk 16): the answer's method counts, else post.
    method = text_member(document, "token_endpoint_auth_method") or (
        "client_secret_post" if secret else "none"
    )
    if method == "none" and secret:
        method = "client_secret_post"
    return Client(
        client_id,
        Secret(secret) if secret else None,
        method,
        tuple(uri for uri in texts_member(document, "redirect_uris", MAX_REDIRECT_URIS) or () if is_uri(uri)),
        # RFC 7591 section 3.2.1: in epoch seconds, "or 0 if it will not expire".
        lifetime_seconds(document.get("client_secret_expires_at")),
        registered=True,
        document=document,
    )


def _refusal(response: Response, host: str, redirect_uri: str) -> RegistrationRefused:
    try:
        document = read_json_object(response.body, REGISTRATION)
    except UnreadableAnswer:
        document = dict[str, object]()
    error, words = canonical_error(error_code(document)), server_words(document)
    said = f" ({error})" if error != UNKNOWN_ERROR else ""
    message = f"{host} refused the {REGISTRATION} with status {response.status}{said}."

    def refused(advice: str | None = None) -> RegistrationRefused:
        return RegistrationRefused(message, advice, server_words=words)

    if error == "invalid_redirect_uri":
        return refused(
            f"It does not take {redirect_uri}: set `oauth.redirect_host: localhost` (or 127.0.0.1), or an "
            "https `oauth.redirect_uri`, for this server.",
        )
    if response.status >= 500 or response.status == 429:
        return refused("Try again later; if it lasts, register a client there by hand.")
    if response.status in {401, 403}:
        return refused(
            "This provider admits only clients it knows: register one there by hand with the redirect URI "
            f"{redirect_uri} and set `oauth.client_id`, or ask it to admit your `oauth.client_name`.",
        )
    return refused()


def register(
    server: AuthorizationServer,
    redirect_uri: str,
    *,
    client_name: str,
    scope: Iterable[str] = (),
    method: str | None = None,
    application_type: str | None = None,
) -> Exchange[Client]:
    """Register; what the server refuses is asked for once more in another way.

    That is the other spelling of a loopback redirect URI (quirk 22), or no device grant. The client's
    `redirect_uris` says which one was taken, `may_use_device` whether the grant was.
    """
    device = offers_device(server)

    def ask(uri: str, *, device: bool) -> Exchange[Client]:
        response = yield registration_request(
            server,
            uri,
            client_name=client_name,
            scope=scope,
            method=method,
            application_type=application_type,
            device=device,
        )
        return read_registration_response(response, server, uri, device=device)

    try:
        return (yield from ask(redirect_uri, device=device))
    except RegistrationRefused as refused:
        other = _other_loopback(redirect_uri)
        said = f"{refused} {refused.server_words}".lower()
        # Not every server knows the code invalid_redirect_uri; those that do not still say "redirect".
        if other is not None and "redirect" in said:
            again = ask(other, device=device)
        elif device and ("grant" in said or "invalid_client_metadata" in said):
            # What a server offers it may not offer to everyone; pasting must not suffer for it.
            again = ask(redirect_uri, device=False)
        else:
            raise
        try:
            return (yield from again)
        except RegistrationRefused:
            raise refused from None


def _other_loopback(redirect_uri: str) -> str | None:
    parts = urlsplit(redirect_uri)
    other = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}.get(parts.hostname or "")
    if other is None:
        return None
    return urlunsplit(parts._replace(netloc=other if parts.port is None else f"{other}:{parts.port}"))


def authenticate(
    client: Client, issuer: str, form: Form, *, sign: Signer | None = None, method: str | None = None
) -> tuple[Form, Headers]:
    """Add the client's authentication to a form; returns the form and the headers to send (RFC 6749 §2.3).

    Raises RegistrationRefused where the method needs a key or a secret that is not there.
    """
    method = method or client.method
    if method == "none":
        return {**form, "client_id": client.client_id}, ()
    if method in {"private_key_jwt", "client_secret_jwt"}:
        if sign is None:
            raise RegistrationRefused(
                f"The client authenticates with {method}, but there is no key to sign with.",
                "Set `oauth.private_key_file` for this server.",
            )
        assertion = sign(client.client_id, issuer)
        return {
            **form,
            "client_id": client.client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }, ()
    if client.client_secret is None:
        raise RegistrationRefused(
            f"The client authenticates with {method}, but there is no client secret.",
            "Set `oauth.client_secret` for this server.",
        )
    if method == "client_secret_basic":
        # RFC 6749 section 2.3.1: both are form-urlencoded before they are joined (quirk 17).
        pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret.reveal())}"
        basic = base64.b64encode(pair.encode()).decode()
        return form, (("authorization", Secret(f"Basic {basic}")),)
    return {**form, "client_id": client.client_id, "client_secret": client.client_secret}, ()

"""Client registration and client authentication."""

from __future__ import annotations

import base64
import json

import pytest

from hermes_mcp_auth_remote.errors import ClientIdRequired, MalformedResponse, RegistrationError
from hermes_mcp_auth_remote.oauth.client import (
    CLIENT_ASSERTION_TYPE,
    DEVICE_GRANT,
    Client,
    authenticate_client,
    client_from_document,
    configured_client,
    metadata_document_client,
    register_client,
    registration_request,
)
from hermes_mcp_auth_remote.oauth.device import can_use_device_flow
from hermes_mcp_auth_remote.oauth.wire import MAX_LIFETIME_SECONDS
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import ExchangeScript, read_sample, script_exchange
from tests.oauth.builders import ISSUER, REDIRECT_URI, client, server
from tests.requirements import covers

REGISTER = f"POST {ISSUER}/register"
LOCALHOST_URI = REDIRECT_URI.replace("127.0.0.1", "localhost")
HTTPS_URI = "https://hermes.example/callback"


def script_registration(redirect_uri: str = REDIRECT_URI, /, **members: object) -> ExchangeScript[Client]:
    return script_exchange(register_client(server(**members), redirect_uri, client_name="Hermes"))


@covers("client-id-needed")
def test_quirk_14_without_a_registration_endpoint_the_error_says_what_to_register() -> None:
    error = script_registration(registration_endpoint=None).raises(ClientIdRequired)
    assert REDIRECT_URI in error.advice
    assert "oauth.client_id" in error.advice


@covers("registration-403")
def test_quirk_15_403_at_registration_suggests_a_known_client_name() -> None:
    script = script_registration().expects(REGISTER, json={"client_name": "Hermes"})
    error = script.responds(403, read_sample("figma/registration"), {"content-type": "text/plain"}).raises(
        RegistrationError, "status 403"
    )
    assert "oauth.client_name" in error.advice
    assert "only clients it knows" in error.advice


@covers("secret-unasked")
@pytest.mark.parametrize(
    ("extra_members", "method"),
    [
        ({}, "client_secret_post"),
        ({"token_endpoint_auth_method": "none"}, "client_secret_post"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "client_secret_basic"),
    ],
)
def test_quirk_16_an_unrequested_client_secret_is_stored_and_used(
    extra_members: dict[str, object], method: str
) -> None:
    script = script_registration().expects(REGISTER, json={"token_endpoint_auth_method": "none"})
    registered_client = script.responds(
        201, {"client_id": "c", "client_secret": "s3cret", **extra_members}
    ).returns()
    assert (registered_client.client_secret, registered_client.auth_method) == (Secret("s3cret"), method)


@covers("auth-method")
@pytest.mark.parametrize(
    ("offered", "registered", "configured"),
    [
        (["client_secret_post"], "client_secret_post", "client_secret_post"),
        (["client_secret_basic"], "client_secret_basic", "client_secret_basic"),
        (["client_secret_basic", "client_secret_post"], "client_secret_post", "client_secret_basic"),
        (["client_secret_post", "none"], "none", "client_secret_post"),
        (["tls_client_auth"], "none", "client_secret_post"),
        ([], "none", "client_secret_post"),
        (None, "none", "client_secret_basic"),
    ],
)
def test_quirk_17_basic_is_not_used_if_only_post_is_listed(
    offered: list[str] | None, registered: str, configured: str
) -> None:
    authorization_server = server(token_endpoint_auth_methods_supported=offered)
    document = json.loads(registration_request(authorization_server, REDIRECT_URI, client_name="Hermes").body)
    assert document["token_endpoint_auth_method"] == registered
    assert (
        configured_client(authorization_server, "c", Secret("s"), None, REDIRECT_URI).auth_method
        == configured
    )
    assert configured_client(authorization_server, "c", None, None, REDIRECT_URI).auth_method == "none"
    assert (
        configured_client(authorization_server, "c", Secret("s"), "client_secret_post", "").auth_method
        == "client_secret_post"
    )


@covers("auth-method")
def test_quirk_17_basic_form_urlencodes_id_and_secret() -> None:
    authorization_server = client(
        client_id="https://a b", client_secret=Secret("p:ä+%"), auth_method="client_secret_basic"
    )
    form, headers = authenticate_client(authorization_server, ISSUER, {"grant_type": "x"})
    assert form == {"grant_type": "x"}
    ((name, value),) = headers
    assert name == "authorization"
    assert isinstance(value, Secret)
    assert base64.b64decode(value.reveal().removeprefix("Basic ")) == b"https%3A%2F%2Fa+b:p%3A%C3%A4%2B%25"


def test_an_assertion_is_signed_for_the_issuer() -> None:
    authorization_server = client(auth_method="private_key_jwt")
    form, headers = authenticate_client(
        authorization_server, ISSUER, {}, sign=lambda client_id, audience: Secret(f"{client_id}>{audience}")
    )
    assert headers == ()
    assert form == {
        "client_id": "client-1",
        "client_assertion_type": CLIENT_ASSERTION_TYPE,
        "client_assertion": Secret(f"client-1>{ISSUER}"),
    }


@pytest.mark.parametrize(
    "method", ["private_key_jwt", "client_secret_jwt", "client_secret_post", "tls_client_auth"]
)
def test_a_method_without_its_key_or_secret_is_refused_before_anything_is_sent(method: str) -> None:
    with pytest.raises(RegistrationError, match=method):
        authenticate_client(client(auth_method=method), ISSUER, {})


@covers("registered-uri")
def test_quirk_18_a_client_keeps_its_registered_redirect_uris() -> None:
    script = script_registration().expects(REGISTER, json={"redirect_uris": [REDIRECT_URI]})
    registered_client = script.responds(
        201, {"client_id": "c", "redirect_uris": [REDIRECT_URI, HTTPS_URI]}
    ).returns()
    # A server must not choose where a later login listens.
    assert registered_client.redirect_uris == (REDIRECT_URI,)
    assert registered_client.is_registered


@covers("cimd-flag")
def test_quirk_20_metadata_document_support_must_be_the_value_true() -> None:
    url = "https://hermes.example/client.json"
    assert metadata_document_client(url, REDIRECT_URI) == Client(url, redirect_uris=(REDIRECT_URI,))
    assert metadata_document_client(url, REDIRECT_URI, has_private_key=True).auth_method == "private_key_jwt"
    assert server(client_id_metadata_document_supported=True).client_id_metadata_document_supported
    assert not server(client_id_metadata_document_supported="true").client_id_metadata_document_supported
    assert not server().client_id_metadata_document_supported


@covers("other-loopback")
@pytest.mark.parametrize(
    "refusal",
    [
        {"error": "invalid_redirect_uri"},
        {"error": "invalid_client_metadata", "error_description": "Redirect URIs must be localhost"},
    ],
)
@pytest.mark.parametrize(("first", "second"), [(REDIRECT_URI, LOCALHOST_URI), (LOCALHOST_URI, REDIRECT_URI)])
def test_quirk_22_registration_retries_once_with_the_other_loopback_host(
    refusal: dict[str, object], first: str, second: str
) -> None:
    script = (
        script_registration(first).expects(REGISTER, json={"redirect_uris": [first]}).responds(400, refusal)
    )
    script.expects(REGISTER, json={"redirect_uris": [second]}).responds(201, {"client_id": "c"})
    assert script.returns().redirect_uris == (second,)


@covers("other-loopback")
def test_quirk_22_if_no_loopback_host_is_accepted_the_error_suggests_https() -> None:
    refusal: dict[str, object] = {"error": "invalid_redirect_uri"}
    script = (
        script_registration()
        .expects(REGISTER)
        .responds(400, refusal)
        .expects(REGISTER)
        .responds(400, refusal)
    )
    error = script.raises(RegistrationError)
    assert "https `oauth.redirect_uri`" in error.advice
    assert REDIRECT_URI in error.advice


@covers("other-loopback")
@pytest.mark.parametrize("error", ["invalid_redirect_uri", "invalid_client_metadata", "slow_down"])
def test_quirk_22_an_https_redirect_uri_or_another_error_is_not_retried(error: str) -> None:
    uri = HTTPS_URI if error == "invalid_redirect_uri" else REDIRECT_URI
    script_registration(uri).expects(REGISTER).responds(400, {"error": error}).raises(
        RegistrationError, error
    )


@covers("application-type")
@pytest.mark.parametrize(
    ("uri", "kind"), [(REDIRECT_URI, "native"), (LOCALHOST_URI, "native"), (HTTPS_URI, "web")]
)
def test_the_application_type_follows_the_redirect_uri_unless_it_is_configured(uri: str, kind: str) -> None:
    registration = json.loads(registration_request(server(), uri, client_name="Hermes").body)
    assert registration["application_type"] == kind
    assert registration["grant_types"] == ["authorization_code", "refresh_token"]
    forced = registration_request(server(), uri, client_name="Hermes", application_type="web")
    assert json.loads(forced.body)["application_type"] == "web"


GRANTS = ["authorization_code", "refresh_token"]
DEVICE: dict[str, object] = {"device_authorization_endpoint": f"{ISSUER}/device"}


@covers("device-grant")
@pytest.mark.parametrize(
    ("members", "grants"),
    [
        (DEVICE, [*GRANTS, DEVICE_GRANT]),
        ({**DEVICE, "grant_types_supported": [*GRANTS, DEVICE_GRANT]}, [*GRANTS, DEVICE_GRANT]),
        ({**DEVICE, "grant_types_supported": GRANTS}, GRANTS),
        ({**DEVICE, "grant_types_supported": []}, GRANTS),
        ({"grant_types_supported": [DEVICE_GRANT]}, GRANTS),
        ({}, GRANTS),
    ],
    ids=["endpoint", "endpoint and grant", "another list", "an empty list", "no endpoint", "nothing"],
)
def test_quirk_23_the_device_grant_is_registered_only_if_the_server_supports_it(
    members: dict[str, object], grants: list[str]
) -> None:
    script = script_registration(**members).expects(REGISTER, json={"grant_types": grants})
    # Many servers do not repeat the registered metadata.
    registered_client = script.responds(201, {"client_id": "c"}).returns()
    assert can_use_device_flow(registered_client) is (DEVICE_GRANT in grants)


@covers("device-grant")
def test_quirk_23_the_grant_types_in_the_registration_response_are_kept() -> None:
    script = script_registration(**DEVICE).expects(REGISTER)
    fewer = script.responds(201, {"client_id": "c", "grant_types": GRANTS}).returns()
    assert not can_use_device_flow(fewer)
    assert not can_use_device_flow(client_from_document(fewer.document))
    assert not can_use_device_flow(client_from_document({"client_id": "c"})), (
        "registered by a version without the device flow"
    )
    assert can_use_device_flow(client_from_document({"client_id": "c", "grant_types": [DEVICE_GRANT]}))
    by_hand = configured_client(server(**DEVICE), "c", None, None, REDIRECT_URI)
    assert can_use_device_flow(by_hand), "unknown for a configured client, so the device flow is tried"


@covers("device-grant")
@pytest.mark.parametrize(
    "refusal",
    [
        {"error": "invalid_client_metadata"},
        {"error": "invalid_request", "error_description": "Grant types: must be authorization_code"},
    ],
)
def test_registration_retries_once_without_a_refused_device_grant(refusal: dict[str, object]) -> None:
    script = script_registration(**DEVICE).expects(REGISTER, json={"grant_types": [*GRANTS, DEVICE_GRANT]})
    script.responds(400, refusal).expects(
        REGISTER, json={"grant_types": GRANTS, "redirect_uris": [REDIRECT_URI]}
    )
    assert not can_use_device_flow(script.responds(201, {"client_id": "c"}).returns())
    script = script_registration(**DEVICE).expects(REGISTER).responds(400, refusal).expects(REGISTER)
    script.responds(500).raises(RegistrationError, "status 400")
    script_registration().expects(REGISTER).responds(400, refusal).raises(RegistrationError, "status 400")


def test_the_requested_scope_is_registered() -> None:
    registration = registration_request(server(), REDIRECT_URI, client_name="Hermes", scope=("b", "a"))
    assert json.loads(registration.body)["scope"] == "a b"
    assert "scope" not in json.loads(registration_request(server(), REDIRECT_URI, client_name="Hermes").body)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_temporary_registration_failure_advises_to_try_again_later(status: int) -> None:
    script = script_registration().expects(REGISTER).responds(status, "<h1>Oops</h1>")
    script.raises(RegistrationError, "Try again later")


@pytest.mark.parametrize(
    "body",
    ["<html>", b'{"client_id": "c', [], {}, {"client_id": ""}, {"client_id": 7}, {"client_id": "a\ud800"}],
    ids=["HTML", "truncated", "a list", "nothing", "empty id", "a number", "half a surrogate pair"],
)
def test_a_registration_response_without_a_valid_client_id_is_refused(body: object) -> None:
    script = script_registration().expects(REGISTER).responds(201, body)  # type: ignore[arg-type]
    script.raises(MalformedResponse)


def test_a_registration_response_with_another_redirect_uri_is_refused() -> None:
    body: dict[str, object] = {"client_id": "c", "redirect_uris": ["https://evil.example/"]}
    script = script_registration(HTTPS_URI).expects(REGISTER).responds(201, body)
    script.raises(RegistrationError, "another redirect URI")


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        (1_800_000_000, 1_800_000_000.0),
        (0, None),
        (None, None),
        (True, None),
        ("never", None),
        (-1, None),
        ([], None),
        (10**400, None),
        (1e300, MAX_LIFETIME_SECONDS),
    ],
)
def test_invalid_values_of_client_secret_expires_at_are_ignored(value: object, ends: float | None) -> None:
    document = {"client_id": "c", "client_secret": "s", "client_secret_expires_at": value}
    assert client_from_document(document).secret_expires_at == ends


def test_client_information_without_an_id_is_refused() -> None:
    with pytest.raises(MalformedResponse):
        client_from_document({"client_secret": "s"})

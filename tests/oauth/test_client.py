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
from tests.oauth.parties import ISSUER, REDIRECT_URI, client, server
from tests.playbook import Play, play, sample
from tests.requirements import covers

REGISTER = f"POST {ISSUER}/register"
LOCALHOST_URI = REDIRECT_URI.replace("127.0.0.1", "localhost")
HTTPS_URI = "https://hermes.example/callback"


def registering(redirect_uri: str = REDIRECT_URI, /, **members: object) -> Play[Client]:
    return play(register_client(server(**members), redirect_uri, client_name="Hermes"))


@covers("client-id-needed")
def test_quirk_14_no_registration_endpoint_stops_without_a_request_and_says_what_to_register() -> None:
    error = registering(registration_endpoint=None).raises(ClientIdRequired)
    assert REDIRECT_URI in error.advice
    assert "oauth.client_id" in error.advice


@covers("registration-403")
def test_quirk_15_403_forbidden_in_plain_text_names_allow_listing_and_client_name() -> None:
    script = registering().expects(REGISTER, json={"client_name": "Hermes"})
    error = script.answers(403, sample("figma/registration"), {"content-type": "text/plain"}).raises(
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
def test_quirk_16_a_client_secret_although_none_was_asked_for_is_kept_and_used(
    extra_members: dict[str, object], method: str
) -> None:
    script = registering().expects(REGISTER, json={"token_endpoint_auth_method": "none"})
    taken = script.answers(201, {"client_id": "c", "client_secret": "s3cret", **extra_members}).returns()
    assert (taken.client_secret, taken.auth_method) == (Secret("s3cret"), method)


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
def test_quirk_17_basic_is_never_used_where_only_post_is_listed(
    offered: list[str] | None, registered: str, configured: str
) -> None:
    party = server(token_endpoint_auth_methods_supported=offered)
    document = json.loads(registration_request(party, REDIRECT_URI, client_name="Hermes").body)
    assert document["token_endpoint_auth_method"] == registered
    assert configured_client(party, "c", Secret("s"), None, REDIRECT_URI).auth_method == configured
    assert configured_client(party, "c", None, None, REDIRECT_URI).auth_method == "none"
    assert (
        configured_client(party, "c", Secret("s"), "client_secret_post", "").auth_method
        == "client_secret_post"
    )


@covers("auth-method")
def test_quirk_17_basic_form_urlencodes_id_and_secret() -> None:
    party = client(client_id="https://a b", client_secret=Secret("p:ä+%"), auth_method="client_secret_basic")
    form, headers = authenticate_client(party, ISSUER, {"grant_type": "x"})
    assert form == {"grant_type": "x"}
    ((name, value),) = headers
    assert name == "authorization"
    assert isinstance(value, Secret)
    assert base64.b64decode(value.reveal().removeprefix("Basic ")) == b"https%3A%2F%2Fa+b:p%3A%C3%A4%2B%25"


def test_an_assertion_is_signed_for_the_issuer() -> None:
    party = client(auth_method="private_key_jwt")
    form, headers = authenticate_client(
        party, ISSUER, {}, sign=lambda who, audience: Secret(f"{who}>{audience}")
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
def test_quirk_18_the_client_says_which_redirect_uri_was_registered() -> None:
    script = registering().expects(REGISTER, json={"redirect_uris": [REDIRECT_URI]})
    taken = script.answers(201, {"client_id": "c", "redirect_uris": [REDIRECT_URI, HTTPS_URI]}).returns()
    assert taken.redirect_uris == (REDIRECT_URI, HTTPS_URI)
    assert taken.is_registered


@covers("cimd-flag")
def test_quirk_20_a_metadata_document_is_a_client_id_and_its_support_has_to_be_true() -> None:
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
def test_quirk_22_the_other_spelling_of_loopback_is_tried_once(
    refusal: dict[str, object], first: str, second: str
) -> None:
    script = registering(first).expects(REGISTER, json={"redirect_uris": [first]}).answers(400, refusal)
    script.expects(REGISTER, json={"redirect_uris": [second]}).answers(201, {"client_id": "c"})
    assert script.returns().redirect_uris == (second,)


@covers("other-loopback")
def test_quirk_22_none_of_loopback_is_taken_and_the_message_names_an_https_redirect() -> None:
    refusal: dict[str, object] = {"error": "invalid_redirect_uri"}
    script = registering().expects(REGISTER).answers(400, refusal).expects(REGISTER).answers(400, refusal)
    error = script.raises(RegistrationError)
    assert "https `oauth.redirect_uri`" in error.advice
    assert REDIRECT_URI in error.advice


@covers("other-loopback")
@pytest.mark.parametrize("error", ["invalid_redirect_uri", "invalid_client_metadata", "slow_down"])
def test_quirk_22_an_https_redirect_uri_or_another_refusal_is_not_retried(error: str) -> None:
    uri = HTTPS_URI if error == "invalid_redirect_uri" else REDIRECT_URI
    registering(uri).expects(REGISTER).answers(400, {"error": error}).raises(RegistrationError, error)


@covers("application-type")
@pytest.mark.parametrize(
    ("uri", "kind"), [(REDIRECT_URI, "native"), (LOCALHOST_URI, "native"), (HTTPS_URI, "web")]
)
def test_the_application_type_follows_the_redirect_uri_unless_it_is_configured(uri: str, kind: str) -> None:
    wanted = json.loads(registration_request(server(), uri, client_name="Hermes").body)
    assert wanted["application_type"] == kind
    assert wanted["grant_types"] == ["authorization_code", "refresh_token"]
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
def test_quirk_23_the_device_grant_is_registered_where_it_is_offered_and_nowhere_else(
    members: dict[str, object], grants: list[str]
) -> None:
    script = registering(**members).expects(REGISTER, json={"grant_types": grants})
    # Many servers do not repeat the registered metadata.
    taken = script.answers(201, {"client_id": "c"}).returns()
    assert can_use_device_flow(taken) is (DEVICE_GRANT in grants)


@covers("device-grant")
def test_quirk_23_what_the_server_says_it_registered_counts_also_once_it_was_stored() -> None:
    script = registering(**DEVICE).expects(REGISTER)
    fewer = script.answers(201, {"client_id": "c", "grant_types": GRANTS}).returns()
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
def test_a_device_grant_that_is_refused_after_all_is_left_out_once(refusal: dict[str, object]) -> None:
    script = registering(**DEVICE).expects(REGISTER, json={"grant_types": [*GRANTS, DEVICE_GRANT]})
    script.answers(400, refusal).expects(
        REGISTER, json={"grant_types": GRANTS, "redirect_uris": [REDIRECT_URI]}
    )
    assert not can_use_device_flow(script.answers(201, {"client_id": "c"}).returns())
    script = registering(**DEVICE).expects(REGISTER).answers(400, refusal).expects(REGISTER)
    script.answers(500).raises(RegistrationError, "status 400")
    registering().expects(REGISTER).answers(400, refusal).raises(RegistrationError, "status 400")


def test_the_scope_that_will_be_asked_for_is_registered() -> None:
    wanted = registration_request(server(), REDIRECT_URI, client_name="Hermes", scope=("b", "a"))
    assert json.loads(wanted.body)["scope"] == "a b"
    assert "scope" not in json.loads(registration_request(server(), REDIRECT_URI, client_name="Hermes").body)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_registration_that_fails_for_now_says_try_again_later(status: int) -> None:
    script = registering().expects(REGISTER).answers(status, "<h1>Oops</h1>")
    script.raises(RegistrationError, "Try again later")


@pytest.mark.parametrize(
    "body",
    ["<html>", b'{"client_id": "c', [], {}, {"client_id": ""}, {"client_id": 7}, {"client_id": "a\ud800"}],
    ids=["HTML", "truncated", "a list", "nothing", "empty id", "a number", "half a surrogate pair"],
)
def test_a_registration_answer_without_a_usable_id_is_refused(body: object) -> None:
    script = registering().expects(REGISTER).answers(201, body)  # type: ignore[arg-type]
    script.raises(MalformedResponse)


def test_an_answer_with_another_redirect_uri_than_asked_is_refused() -> None:
    body: dict[str, object] = {"client_id": "c", "redirect_uris": ["https://evil.example/"]}
    script = registering(HTTPS_URI).expects(REGISTER).answers(201, body)
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
def test_any_client_secret_expires_at_is_survived(value: object, ends: float | None) -> None:
    document = {"client_id": "c", "client_secret": "s", "client_secret_expires_at": value}
    assert client_from_document(document).secret_expires_at == ends


def test_client_information_without_an_id_is_refused() -> None:
    with pytest.raises(MalformedResponse):
        client_from_document({"client_secret": "s"})

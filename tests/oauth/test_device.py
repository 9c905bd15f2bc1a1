"""Device authorization: the request, the response that the user sees, and refusals."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import (
    DeviceAuthorizationError,
    MalformedResponse,
    RegistrationError,
    TimedOut,
    TokenError,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.oauth.device import (
    MAX_DEVICE_CODE_SECONDS,
    DeviceAuthorization,
    obtain_device_authorization,
)
from hermes_mcp_auth_remote.values import Secret
from tests.oauth.parties import (
    HTML,
    ISSUER,
    client,
    server,
)
from tests.playbook import Play, play
from tests.requirements import covers

ENDPOINT = f"{ISSUER}/device_authorization"
DEVICE = f"POST {ENDPOINT}"
WITH_DEVICE = server(device_authorization_endpoint=ENDPOINT)
URI = "https://as.example/device"
ANSWERED: dict[str, object] = {
    "device_code": "d3vice-code-that-was-minted",
    "user_code": "WDJB-MJHT",
    "verification_uri": URI,
    "verification_uri_complete": f"{URI}?user_code=WDJB-MJHT",
    "expires_in": 900,
    "interval": 7,
}


def authorizing(**members: object) -> Play[DeviceAuthorization]:
    arguments: dict[str, object] = {"authorization_server": WITH_DEVICE, "client": client(), **members}
    return play(obtain_device_authorization(**arguments))  # type: ignore[arg-type]


def answered(**members: object) -> DeviceAuthorization:
    document = {name: value for name, value in {**ANSWERED, **members}.items() if value is not None}
    return authorizing().expects(DEVICE).answers(200, document).returns()


def test_the_request_carries_client_scope_and_resource_and_the_answer_becomes_a_value() -> None:
    script = authorizing(scope=frozenset({"b", "a"}), resource="https://mcp.example")
    script.expects(
        DEVICE,
        form={
            "client_id": "client-1",
            "scope": "a b",
            "resource": "https://mcp.example",
            "grant_type": None,
        },
        headers={"accept": "application/json"},
    )
    device = script.answers(200, ANSWERED).returns()
    assert device == DeviceAuthorization(
        Secret("d3vice-code-that-was-minted"), "WDJB-MJHT", URI, f"{URI}?user_code=WDJB-MJHT", 900, 7
    )
    authorizing().expects(DEVICE, form={"scope": None, "resource": None}).answers(200, ANSWERED).returns()


@covers("no-secret")
def test_neither_code_is_in_a_repr() -> None:
    shown = repr(answered())
    assert "d3vice" not in shown
    assert "WDJB" not in shown


@covers("extra-parameters")
def test_an_operator_adds_an_audience_but_never_another_client() -> None:
    extra = {"audience": "https://api.example", "scope": "mine", "client_id": "other", "client_secret": "x"}
    script = authorizing(scope=frozenset({"a"}), extra_parameters=extra)
    wanted = {
        "audience": "https://api.example",
        "scope": "mine",
        "client_id": "client-1",
        "client_secret": None,
    }
    script.expects(DEVICE, form=wanted).answers(200, ANSWERED).returns()


@covers("device-endpoint")
def test_without_an_endpoint_nothing_is_sent_and_none_is_guessed() -> None:
    error = authorizing(authorization_server=server()).raises(
        DeviceAuthorizationError, "offers no device flow"
    )
    assert error.error == "unsupported_grant_type"
    assert "oauth.flow: paste" in error.advice


@covers("auth-method")
def test_quirk_17_basic_refused_as_invalid_client_is_tried_once_more_with_post() -> None:
    who = client(client_secret=Secret("s3cret"), auth_method="client_secret_basic")
    refused: dict[str, object] = {"error": "invalid_client"}
    script = authorizing(client=who).expects(DEVICE, form={"client_secret": None} | {"resource": None})
    script.answers(401, refused).expects(DEVICE, form={"client_secret": "s3cret"})
    script.answers(200, ANSWERED).returns()
    script = authorizing(client=who).expects(DEVICE).answers(401, refused).expects(DEVICE)
    assert (
        script.answers(400, {"error": "invalid_request"}).raises(DeviceAuthorizationError).error
        == "invalid_client"
    )
    script = authorizing().expects(DEVICE).answers(401, refused)
    assert script.raises(DeviceAuthorizationError, "register again").error == "invalid_client"


def test_a_client_that_cannot_authenticate_is_refused_before_anything_is_sent() -> None:
    authorizing(client=client(auth_method="private_key_jwt")).raises(RegistrationError)


# What the user sees


@covers("device-answer")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 5),
        (0, 5),
        (-1, 5),
        ("soon", 5),
        (True, 5),
        (float("nan"), 5),
        ([], 5),
        ("10", 10),
        (7.5, 7.5),
        (0.01, 1),
    ],
)
def test_quirk_46_an_interval_that_is_missing_or_junk_is_five_seconds(value: object, seconds: float) -> None:
    assert answered(interval=value).interval_seconds == seconds


@covers("device-answer")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 600),
        ("x", 600),
        (0, 600),
        ("60", 60),
        (1800, 1800),
        (10**400, 600),
        (1e12, MAX_DEVICE_CODE_SECONDS),
    ],
)
def test_a_lifetime_is_survived_and_never_longer_than_half_an_hour(value: object, seconds: float) -> None:
    assert answered(expires_in=value).lifetime_seconds == seconds


@covers("device-answer")
@pytest.mark.parametrize(
    "code",
    ["", "  ", "A" * 65, "AB\nCD", "AB\u202eCD", "ΑΒΓΔ", "\x1b[2J", 12345678, ["A"], None, "a\ud800"],
    ids=["empty", "blank", "long", "lines", "bidi", "Greek", "escape", "number", "list", "none", "half"],
)
def test_a_user_code_that_nobody_could_type_is_refused_unshown(code: object) -> None:
    script = authorizing().expects(DEVICE).answers(200, {**ANSWERED, "user_code": code})
    error = script.raises(MalformedResponse, "no user code")
    assert not isinstance(code, str) or len(code.strip()) < 3 or code not in str(error)


@covers("device-answer")
def test_a_user_code_is_shown_as_it_came_without_blanks_around_it() -> None:
    assert answered(user_code=" 019-450-730 ").user_code == "019-450-730"
    assert answered(user_code="A" * 64).user_code == "A" * 64


@covers("device-answer", "safe-urls")
@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "http://as.example/device",
        "https://user@as.example/device",
        "file:///etc/passwd",
        "https://as.example/\u202e",
        "tg://resolve?domain=x",
    ],
)
def test_an_unsafe_verification_uri_is_never_shown(uri: str) -> None:
    script = authorizing().expects(DEVICE).answers(200, {**ANSWERED, "verification_uri": uri})
    if uri.isprintable():
        script.raises(UnsafeUrl, "verification_uri")
    else:
        script.raises(MalformedResponse, "no address")


@covers("device-answer", "safe-urls")
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "a.localhost", "[::1]:9", "127.1.2.3"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_elsewhere_shows_nobody_an_address_on_this_machine(scheme: str, host: str) -> None:
    uri = f"{scheme}://{host}/device"
    script = authorizing().expects(DEVICE).answers(200, {**ANSWERED, "verification_uri": uri})
    script.raises(UnsafeUrl, "on this machine")


@covers("device-answer", "safe-urls")
@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/device?user_code=WDJB-MJHT",
        "http://as.example/device?user_code=WDJB-MJHT",
        "https://as.example:8443/device?user_code=WDJB-MJHT",
        "https://as.example.evil.example/device",
        "https://as.example@evil.example/device",
        "javascript:alert(1)",
        "https://as.example/\n?",
        "https://as.example/" + "a" * 9000,
        7,
        "",
    ],
)
def test_a_complete_address_elsewhere_or_odd_is_left_out_and_the_login_goes_on(uri: object) -> None:
    device = answered(verification_uri_complete=uri)
    assert (device.verification_uri, device.verification_uri_complete) == (URI, None)


@covers("device-answer")
def test_google_spells_it_verification_url() -> None:
    device = answered(
        verification_uri=None,
        verification_uri_complete=None,
        verification_url="https://www.google.com/device",
        verification_url_complete="https://WWW.google.com:443/device?user_code=A",
    )
    assert device.verification_uri == "https://www.google.com/device"
    assert device.verification_uri_complete == "https://www.google.com/device?user_code=A"


@pytest.mark.parametrize("member", ["device_code", "verification_uri"])
@pytest.mark.parametrize("value", [None, "", 7, "a\x00"])
def test_an_answer_without_a_device_code_or_address_is_refused(member: str, value: object) -> None:
    authorizing().expects(DEVICE).answers(200, {**ANSWERED, member: value}).raises(MalformedResponse)


@covers("form-answer")
def test_a_form_is_read_as_github_sends_it() -> None:
    body = (
        b"device_code=3584d83530557fdd1f46af8289938c8ef79f9dc5&expires_in=899&interval=5"
        b"&user_code=4440-7B7B&verification_uri=https%3A%2F%2Fas.example%2Flogin%2Fdevice"
    )
    script = authorizing().expects(DEVICE)
    device = script.answers(200, body, {"content-type": "application/x-www-form-urlencoded"}).returns()
    assert (device.user_code, device.lifetime_seconds) == ("4440-7B7B", 899)


# Refusals


@covers("device-scope")
@pytest.mark.parametrize("status", [400, 403, 200])
def test_quirk_47_a_scope_that_the_device_flow_may_not_have_says_so_and_names_pasting(status: int) -> None:
    script = authorizing(scope=frozenset({"https://mail.example/"})).expects(DEVICE)
    refusal: dict[str, object] = {"error": "invalid_scope", "error_description": "Invalid device flow scope"}
    error = script.answers(status, refusal).raises(DeviceAuthorizationError, "invalid_scope")
    assert error.server_message == "Invalid device flow scope"
    assert error.error == "invalid_scope"
    assert "pasting" in error.advice


@covers("device-grant")
def test_quirk_23_a_client_without_the_grant_shows_as_unauthorized_client() -> None:
    script = authorizing().expects(DEVICE).answers(400, {"error": "unauthorized_client"})
    error = script.raises(DeviceAuthorizationError)
    assert error.error == "unauthorized_client"
    assert isinstance(error, TokenError)


@pytest.mark.parametrize(("status", "body"), [(404, HTML), (403, b""), (401, b'{"a": 1}'), (400, b"[]")])
def test_a_refusal_that_says_nothing_keeps_its_status(status: int, body: str | bytes) -> None:
    script = authorizing().expects(DEVICE).answers(status, body)
    assert script.raises(DeviceAuthorizationError, f"status {status}").error == f"status {status}"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_for_now_says_try_again_later(status: int) -> None:
    authorizing().expects(DEVICE).answers(status, HTML).raises(MalformedResponse, "Try again later")


@pytest.mark.parametrize("body", [HTML, b"", b"[]", b'{"device_code": "d'])
def test_an_answer_that_is_not_json_is_unreadable(body: str | bytes) -> None:
    authorizing().expects(DEVICE).answers(200, body).raises(MalformedResponse)


def test_a_network_failure_comes_through() -> None:
    authorizing().expects(DEVICE).fails(TimedOut("as.example did not answer.")).raises(TimedOut)


@covers("no-secret")
def test_a_server_that_echoes_the_client_secret_is_quoted_without_it() -> None:
    who = client(client_secret=Secret("s3cret+/="), auth_method="client_secret_post")
    script = authorizing(client=who).expects(DEVICE)
    refusal = {"error": "x s3cret+/=", "error_description": "your secret s3cret%2B%2F%3D is wrong"}
    error = script.answers(400, refusal).raises(DeviceAuthorizationError)
    assert "s3cret" not in f"{error} {error.error} {error.advice}"

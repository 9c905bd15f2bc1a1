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
from tests.exchange_script import ExchangeScript, script_exchange
from tests.oauth.builders import (
    HTML,
    ISSUER,
    client,
    server,
)
from tests.requirements import covers

ENDPOINT = f"{ISSUER}/device_authorization"
DEVICE_REQUEST = f"POST {ENDPOINT}"
DEVICE_SERVER = server(device_authorization_endpoint=ENDPOINT)
URI = "https://as.example/device"
DEVICE_RESPONSE: dict[str, object] = {
    "device_code": "d3vice-code-that-was-minted",
    "user_code": "WDJB-MJHT",
    "verification_uri": URI,
    "verification_uri_complete": f"{URI}?user_code=WDJB-MJHT",
    "expires_in": 900,
    "interval": 7,
}


def script_device_authorization(**members: object) -> ExchangeScript[DeviceAuthorization]:
    arguments: dict[str, object] = {"authorization_server": DEVICE_SERVER, "client": client(), **members}
    return script_exchange(obtain_device_authorization(**arguments))  # type: ignore[arg-type]


def device_authorization_with(**members: object) -> DeviceAuthorization:
    document = {name: value for name, value in {**DEVICE_RESPONSE, **members}.items() if value is not None}
    return script_device_authorization().expects(DEVICE_REQUEST).responds(200, document).returns()


def test_the_request_has_client_scope_and_resource_and_the_response_is_read() -> None:
    script = script_device_authorization(scope=frozenset({"b", "a"}), resource="https://mcp.example")
    script.expects(
        DEVICE_REQUEST,
        form={
            "client_id": "client-1",
            "scope": "a b",
            "resource": "https://mcp.example",
            "grant_type": None,
        },
        headers={"accept": "application/json"},
    )
    device = script.responds(200, DEVICE_RESPONSE).returns()
    assert device == DeviceAuthorization(
        Secret("d3vice-code-that-was-minted"), "WDJB-MJHT", URI, f"{URI}?user_code=WDJB-MJHT", 900, 7
    )
    script_device_authorization().expects(DEVICE_REQUEST, form={"scope": None, "resource": None}).responds(
        200, DEVICE_RESPONSE
    ).returns()


@covers("no-secret")
def test_the_repr_contains_neither_code() -> None:
    text = repr(device_authorization_with())
    assert "d3vice" not in text
    assert "WDJB" not in text


@covers("extra-parameters")
def test_configured_parameters_do_not_replace_the_client() -> None:
    extra = {"audience": "https://api.example", "scope": "mine", "client_id": "other", "client_secret": "x"}
    script = script_device_authorization(scope=frozenset({"a"}), extra_parameters=extra)
    expected_form = {
        "audience": "https://api.example",
        "scope": "mine",
        "client_id": "client-1",
        "client_secret": None,
    }
    script.expects(DEVICE_REQUEST, form=expected_form).responds(200, DEVICE_RESPONSE).returns()


@covers("device-endpoint")
def test_without_a_device_endpoint_nothing_is_sent() -> None:
    error = script_device_authorization(authorization_server=server()).raises(
        DeviceAuthorizationError, "offers no device flow"
    )
    assert error.error == "unsupported_grant_type"
    assert "oauth.flow: paste" in error.advice


@covers("auth-method")
def test_quirk_17_basic_refused_as_invalid_client_is_retried_once_with_post() -> None:
    oauth_client = client(client_secret=Secret("s3cret"), auth_method="client_secret_basic")
    refused: dict[str, object] = {"error": "invalid_client"}
    script = script_device_authorization(client=oauth_client).expects(
        DEVICE_REQUEST, form={"client_secret": None} | {"resource": None}
    )
    script.responds(401, refused).expects(DEVICE_REQUEST, form={"client_secret": "s3cret"})
    script.responds(200, DEVICE_RESPONSE).returns()
    script = (
        script_device_authorization(client=oauth_client)
        .expects(DEVICE_REQUEST)
        .responds(401, refused)
        .expects(DEVICE_REQUEST)
    )
    assert (
        script.responds(400, {"error": "invalid_request"}).raises(DeviceAuthorizationError).error
        == "invalid_client"
    )
    script = script_device_authorization().expects(DEVICE_REQUEST).responds(401, refused)
    assert script.raises(DeviceAuthorizationError, "register again").error == "invalid_client"


def test_a_client_that_cannot_authenticate_is_refused_before_anything_is_sent() -> None:
    script_device_authorization(client=client(auth_method="private_key_jwt")).raises(RegistrationError)


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
def test_quirk_46_a_missing_or_invalid_interval_is_five_seconds(value: object, seconds: float) -> None:
    assert device_authorization_with(interval=value).interval_seconds == seconds


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
def test_an_invalid_lifetime_is_replaced_and_a_long_one_limited(value: object, seconds: float) -> None:
    assert device_authorization_with(expires_in=value).lifetime_seconds == seconds


@covers("device-answer")
@pytest.mark.parametrize(
    "code",
    ["", "  ", "A" * 65, "AB\nCD", "AB\u202eCD", "ΑΒΓΔ", "\x1b[2J", 12345678, ["A"], None, "a\ud800"],
    ids=["empty", "blank", "long", "lines", "bidi", "Greek", "escape", "number", "list", "none", "half"],
)
def test_a_user_code_that_cannot_be_typed_is_refused_and_not_shown(code: object) -> None:
    script = (
        script_device_authorization()
        .expects(DEVICE_REQUEST)
        .responds(200, {**DEVICE_RESPONSE, "user_code": code})
    )
    error = script.raises(MalformedResponse, "no user code")
    assert not isinstance(code, str) or len(code.strip()) < 3 or code not in str(error)


@covers("device-answer")
def test_a_user_code_is_shown_unchanged_except_for_surrounding_blanks() -> None:
    assert device_authorization_with(user_code=" 019-450-730 ").user_code == "019-450-730"
    assert device_authorization_with(user_code="A" * 64).user_code == "A" * 64


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
    script = (
        script_device_authorization()
        .expects(DEVICE_REQUEST)
        .responds(200, {**DEVICE_RESPONSE, "verification_uri": uri})
    )
    if uri.isprintable():
        script.raises(UnsafeUrl, "verification_uri")
    else:
        script.raises(MalformedResponse, "no address")


@covers("device-answer", "safe-urls")
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "a.localhost", "[::1]:9", "127.1.2.3"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_remote_server_cannot_name_a_loopback_verification_uri(scheme: str, host: str) -> None:
    uri = f"{scheme}://{host}/device"
    script = (
        script_device_authorization()
        .expects(DEVICE_REQUEST)
        .responds(200, {**DEVICE_RESPONSE, "verification_uri": uri})
    )
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
def test_an_unsafe_verification_uri_complete_is_ignored(uri: object) -> None:
    device = device_authorization_with(verification_uri_complete=uri)
    assert (device.verification_uri, device.verification_uri_complete) == (URI, None)


@covers("device-answer")
def test_the_google_spelling_verification_url_is_read() -> None:
    device = device_authorization_with(
        verification_uri=None,
        verification_uri_complete=None,
        verification_url="https://www.google.com/device",
        verification_url_complete="https://WWW.google.com:443/device?user_code=A",
    )
    assert device.verification_uri == "https://www.google.com/device"
    assert device.verification_uri_complete == "https://www.google.com/device?user_code=A"


@pytest.mark.parametrize("member", ["device_code", "verification_uri"])
@pytest.mark.parametrize("value", [None, "", 7, "a\x00"])
def test_a_response_without_device_code_or_verification_uri_is_refused(member: str, value: object) -> None:
    script_device_authorization().expects(DEVICE_REQUEST).responds(
        200, {**DEVICE_RESPONSE, member: value}
    ).raises(MalformedResponse)


@covers("form-answer")
def test_a_form_encoded_response_of_github_is_read() -> None:
    body = (
        b"device_code=3584d83530557fdd1f46af8289938c8ef79f9dc5&expires_in=899&interval=5"
        b"&user_code=4440-7B7B&verification_uri=https%3A%2F%2Fas.example%2Flogin%2Fdevice"
    )
    script = script_device_authorization().expects(DEVICE_REQUEST)
    device = script.responds(200, body, {"content-type": "application/x-www-form-urlencoded"}).returns()
    assert (device.user_code, device.lifetime_seconds) == ("4440-7B7B", 899)


# Refusals


@covers("device-scope")
@pytest.mark.parametrize("status", [400, 403, 200])
def test_quirk_47_a_scope_refused_for_the_device_flow_suggests_pasting(status: int) -> None:
    script = script_device_authorization(scope=frozenset({"https://mail.example/"})).expects(DEVICE_REQUEST)
    refusal: dict[str, object] = {"error": "invalid_scope", "error_description": "Invalid device flow scope"}
    error = script.responds(status, refusal).raises(DeviceAuthorizationError, "invalid_scope")
    assert error.server_message == "Invalid device flow scope"
    assert error.error == "invalid_scope"
    assert "pasting" in error.advice


@covers("device-grant")
def test_quirk_23_a_client_without_the_device_grant_gives_unauthorized_client() -> None:
    script = (
        script_device_authorization().expects(DEVICE_REQUEST).responds(400, {"error": "unauthorized_client"})
    )
    error = script.raises(DeviceAuthorizationError)
    assert error.error == "unauthorized_client"
    assert isinstance(error, TokenError)


@pytest.mark.parametrize(("status", "body"), [(404, HTML), (403, b""), (401, b'{"a": 1}'), (400, b"[]")])
def test_a_refusal_without_an_error_code_reports_its_status(status: int, body: str | bytes) -> None:
    script = script_device_authorization().expects(DEVICE_REQUEST).responds(status, body)
    assert script.raises(DeviceAuthorizationError, f"status {status}").error == f"status {status}"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_temporary_server_failure_advises_to_try_again_later(status: int) -> None:
    script_device_authorization().expects(DEVICE_REQUEST).responds(status, HTML).raises(
        MalformedResponse, "Try again later"
    )


@pytest.mark.parametrize("body", [HTML, b"", b"[]", b'{"device_code": "d'])
def test_a_response_that_is_not_json_is_malformed(body: str | bytes) -> None:
    script_device_authorization().expects(DEVICE_REQUEST).responds(200, body).raises(MalformedResponse)


def test_a_network_failure_is_raised() -> None:
    script_device_authorization().expects(DEVICE_REQUEST).fails(
        TimedOut("as.example did not respond.")
    ).raises(TimedOut)


@covers("no-secret")
def test_an_echoed_client_secret_is_not_in_the_error() -> None:
    oauth_client = client(client_secret=Secret("s3cret+/="), auth_method="client_secret_post")
    script = script_device_authorization(client=oauth_client).expects(DEVICE_REQUEST)
    refusal = {"error": "x s3cret+/=", "error_description": "your secret s3cret%2B%2F%3D is wrong"}
    error = script.responds(400, refusal).raises(DeviceAuthorizationError)
    assert "s3cret" not in f"{error} {error.error} {error.advice}"

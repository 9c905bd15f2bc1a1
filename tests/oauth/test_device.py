"""A code for another device: the endpoint, the request, the answer, and all of it at real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.serving import running
from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    DeviceRefused,
    RegistrationRefused,
    TimedOut,
    TokenRefused,
    UnreadableAnswer,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.http.client import run
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT, Client, register
from hermes_mcp_auth_remote.oauth.device import (
    MAX_DEVICE_SECONDS,
    DeviceAuthorization,
    authorize_device,
    find_device_endpoint,
    may_use_device,
)
from hermes_mcp_auth_remote.oauth.metadata import (
    AuthorizationServer,
    default_endpoints,
    discover,
    discover_authorization_server,
)
from hermes_mcp_auth_remote.oauth.polling import Failed, Pending, begin_polling, next_poll, poll_request
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response, scope_text
from hermes_mcp_auth_remote.values import Secret, Server
from tests.browserless import approve_device as approve_at_demo
from tests.browserless import deny_device as deny_at_demo
from tests.oauth.parties import (
    HTML,
    ISSUER,
    NOW,
    OPENID,
    REDIRECT_URI,
    RFC8414,
    client,
    metadata,
    server,
)
from tests.parts.oidc_provider import OidcOptions, OidcProvider, oidc_provider
from tests.parts.person import approve_device as approve_at_oidc
from tests.playbook import Play, play
from tests.requirements import covers
from tests.tripwire import guard

T = TypeVar("T")

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
    arguments: dict[str, object] = {"server": WITH_DEVICE, "client": client(), **members}
    return play(authorize_device(**arguments))  # type: ignore[arg-type]


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
    script = authorizing(scope=frozenset({"a"}), extra=extra)
    wanted = {
        "audience": "https://api.example",
        "scope": "mine",
        "client_id": "client-1",
        "client_secret": None,
    }
    script.expects(DEVICE, form=wanted).answers(200, ANSWERED).returns()


@covers("device-endpoint")
def test_without_an_endpoint_nothing_is_sent_and_none_is_guessed() -> None:
    error = authorizing(server=server()).raises(DeviceRefused, "offers no device flow")
    assert error.error == "unsupported_grant_type"
    assert "oauth.flow: paste" in error.advice


@covers("auth-method")
def test_quirk_17_basic_refused_as_invalid_client_is_tried_once_more_with_post() -> None:
    who = client(client_secret=Secret("s3cret"), method="client_secret_basic")
    refused: dict[str, object] = {"error": "invalid_client"}
    script = authorizing(client=who).expects(DEVICE, form={"client_secret": None} | {"resource": None})
    script.answers(401, refused).expects(DEVICE, form={"client_secret": "s3cret"})
    script.answers(200, ANSWERED).returns()
    script = authorizing(client=who).expects(DEVICE).answers(401, refused).expects(DEVICE)
    assert script.answers(400, {"error": "invalid_request"}).raises(DeviceRefused).error == "invalid_client"
    script = authorizing().expects(DEVICE).answers(401, refused)
    assert script.raises(DeviceRefused, "register again").error == "invalid_client"


def test_a_client_that_cannot_authenticate_is_refused_before_anything_is_sent() -> None:
    authorizing(client=client(method="private_key_jwt")).raises(RegistrationRefused)


# What the person is shown


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
    [(None, 600), ("x", 600), (0, 600), ("60", 60), (1800, 1800), (10**400, 600), (1e12, MAX_DEVICE_SECONDS)],
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
    error = script.raises(UnreadableAnswer, "no user code")
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
        script.raises(UnreadableAnswer, "no address")


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
    authorizing().expects(DEVICE).answers(200, {**ANSWERED, member: value}).raises(UnreadableAnswer)


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
    error = script.answers(status, refusal).raises(DeviceRefused, "Invalid device flow scope")
    assert error.error == "invalid_scope"
    assert "pasting" in error.advice


@covers("device-grant")
def test_quirk_23_a_client_without_the_grant_shows_as_unauthorized_client() -> None:
    script = authorizing().expects(DEVICE).answers(400, {"error": "unauthorized_client"})
    error = script.raises(DeviceRefused)
    assert error.error == "unauthorized_client"
    assert isinstance(error, TokenRefused)


@pytest.mark.parametrize(("status", "body"), [(404, HTML), (403, b""), (401, b'{"a": 1}'), (400, b"[]")])
def test_a_refusal_that_says_nothing_keeps_its_status(status: int, body: str | bytes) -> None:
    script = authorizing().expects(DEVICE).answers(status, body)
    assert script.raises(DeviceRefused, f"status {status}").error == f"status {status}"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_for_now_says_try_again_later(status: int) -> None:
    authorizing().expects(DEVICE).answers(status, HTML).raises(UnreadableAnswer, "Try again later")


@pytest.mark.parametrize("body", [HTML, b"", b"[]", b'{"device_code": "d'])
def test_an_answer_that_is_not_json_is_unreadable(body: str | bytes) -> None:
    authorizing().expects(DEVICE).answers(200, body).raises(UnreadableAnswer)


def test_a_network_failure_comes_through() -> None:
    authorizing().expects(DEVICE).fails(TimedOut("as.example did not answer.")).raises(TimedOut)


@covers("no-secret")
def test_a_server_that_echoes_the_client_secret_is_quoted_without_it() -> None:
    who = client(client_secret=Secret("s3cret+/="), method="client_secret_post")
    script = authorizing(client=who).expects(DEVICE)
    refusal = {"error": "x s3cret+/=", "error_description": "your secret s3cret%2B%2F%3D is wrong"}
    error = script.answers(400, refusal).raises(DeviceRefused)
    assert "s3cret" not in f"{error} {error.error} {error.advice}"


# Where the endpoint is


def finding(
    issuer: str = ISSUER, *, trusted: tuple[str, ...] = (), **members: object
) -> Play[AuthorizationServer]:
    return play(find_device_endpoint(issuer, server(issuer=issuer, **members), trusted))


@covers("device-endpoint")
def test_quirk_46_an_endpoint_that_only_the_openid_document_names_is_found_and_kept() -> None:
    grants = ["authorization_code", DEVICE_GRANT]
    openid = metadata(device_authorization_endpoint=ENDPOINT, grant_types_supported=grants)
    script = finding(grant_types_supported=["authorization_code"]).expects(f"GET {ISSUER}{OPENID}")
    found = script.answers(200, openid).returns()
    assert found.device_authorization_endpoint == ENDPOINT
    assert found.grant_types_supported == tuple(grants)
    assert found.document["device_authorization_endpoint"] == ENDPOINT
    assert found.document["grant_types_supported"] == grants
    script = finding(grant_types_supported=["authorization_code"]).expects(f"GET {ISSUER}{OPENID}")
    silent = script.answers(200, metadata(device_authorization_endpoint=ENDPOINT)).returns()
    assert silent.grant_types_supported is None
    assert "grant_types_supported" not in silent.document


@covers("device-endpoint")
def test_quirk_46_all_else_stays_as_the_first_document_said() -> None:
    other = metadata(
        device_authorization_endpoint=ENDPOINT,
        authorization_endpoint=f"{ISSUER}/other",
        registration_endpoint=f"{ISSUER}/other",
        code_challenge_methods_supported=None,
    )
    found = finding().expects(f"GET {ISSUER}{OPENID}").answers(200, other).returns()
    assert found.authorization_endpoint == f"{ISSUER}/authorize"
    assert found.registration_endpoint == f"{ISSUER}/register"
    assert found.code_challenge_methods_supported == ("S256",)


@covers("device-endpoint")
def test_quirk_46_an_issuer_with_a_path_is_looked_for_in_both_openid_places() -> None:
    issuer = f"{ISSUER}/tenant"
    openid = metadata(issuer, device_authorization_endpoint=f"{issuer}/device")
    script = finding(issuer, token_endpoint=f"{issuer}/token")
    script.expects(f"GET {ISSUER}{OPENID}/tenant").answers(404)
    script.expects(f"GET {issuer}{OPENID}").answers(200, openid)
    assert script.returns().device_authorization_endpoint == f"{issuer}/device"


@covers("device-endpoint")
def test_an_endpoint_that_is_known_or_a_server_that_publishes_nothing_is_not_asked_about() -> None:
    assert play(find_device_endpoint(ISSUER, WITH_DEVICE)).returns() is WITH_DEVICE
    guessed = default_endpoints("https://mcp.example/mcp")
    assert play(find_device_endpoint(guessed.issuer, guessed)).returns() is guessed


@covers("device-endpoint", "issuer-exact")
@pytest.mark.parametrize(
    ("status", "document"),
    [
        (404, None),
        (503, None),
        (200, HTML),
        (200, metadata()),
        (200, metadata(issuer="https://evil.example", device_authorization_endpoint=ENDPOINT)),
        (200, metadata(device_authorization_endpoint=ENDPOINT, token_endpoint=f"{ISSUER}/other")),
        (200, metadata(device_authorization_endpoint="http://evil.example/device")),
        (200, metadata(device_authorization_endpoint=7)),
    ],
    ids=[
        "absent",
        "failing",
        "HTML",
        "lacking",
        "another issuer",
        "another token endpoint",
        "unsafe",
        "junk",
    ],
)
def test_a_document_that_cannot_be_used_leaves_the_server_as_it_was(
    status: int, document: dict[str, object] | str | None
) -> None:
    script = finding().expects(f"GET {ISSUER}{OPENID}").answers(status, document)
    assert script.returns() == server()
    script = finding().expects(f"GET {ISSUER}{OPENID}").fails(TimedOut("as.example did not answer."))
    assert script.returns() == server()


@covers("device-endpoint")
def test_a_trusted_issuer_is_trusted_here_too_where_it_is_the_one_that_was_found_first() -> None:
    found = server(issuer="https://parent.example", token_endpoint=f"{ISSUER}/token")
    openid = metadata(
        issuer="https://parent.example",
        device_authorization_endpoint=ENDPOINT,
        token_endpoint=f"{ISSUER}/token",
        authorization_endpoint=f"{ISSUER}/authorize",
    )
    for trusted, endpoint in ((("https://parent.example",), ENDPOINT), ((), None)):
        script = play(find_device_endpoint(ISSUER, found, trusted)).expects(f"GET {ISSUER}{OPENID}")
        assert script.answers(200, openid).returns().device_authorization_endpoint == endpoint


# At real servers


def once(request: Request) -> Exchange[Response]:
    return (yield request)


class Desk:
    """What a service will do: every request through our own HTTP client, time only said."""

    def __init__(self, url: str) -> None:
        self.server = Server("real", url)
        self.now = NOW

    def run(self, exchange: Exchange[T]) -> T:
        return asyncio.run(run(exchange, self.server, environ={}))

    def begin(self, found: AuthorizationServer, who: Client, scope: str, resource: str) -> Pending:
        wanted = frozenset(scope.split())
        device = self.run(authorize_device(found, who, scope=wanted, resource=resource))
        return begin_polling(found, who, device, self.now, scope=wanted, resource=resource)

    def poll(self, pending: Pending) -> Pending | Tokens | Failed:
        self.now = pending.wakes_at
        return next_poll(pending, self.run(once(poll_request(pending))), self.now)


@pytest.mark.node
@covers("device-poll", "device-grant")
@pytest.mark.parametrize("complete", [True, False], ids=["link", "typed code"])
def test_a_certified_server_registers_approves_and_grants(complete: bool) -> None:  # noqa: FBT001
    resource = "http://127.0.0.1:9/mcp"
    with oidc_provider() as op:
        desk, found = Desk(op.issuer), _discovered(op)
        who = desk.run(register(found, REDIRECT_URI, client_name="Hermes"))
        assert may_use_device(who)
        pending = desk.begin(found, who, "mcp:tools offline_access", resource)
        shown = pending.request.authorization
        assert pending.next_at == NOW + 5, "it sends no interval"
        waiting = desk.poll(pending)
        assert isinstance(waiting, Pending)
        assert waiting.next_at == NOW + 10
        if complete:
            assert shown.verification_uri_complete is not None
            approve_at_oidc(shown.verification_uri_complete)
        else:
            approve_at_oidc(shown.verification_uri, shown.user_code)
        tokens = desk.poll(waiting)
        assert isinstance(tokens, Tokens), tokens
        assert tokens.refresh_token is not None
        assert "mcp:tools" in (tokens.scope or ())
        again = desk.poll(waiting)
        assert isinstance(again, Failed)
        assert isinstance(again.error, TokenRefused)


@pytest.mark.node
@covers("device-grant")
def test_a_certified_server_without_devices_registers_us_without_the_grant() -> None:
    features = OidcOptions().features - {"deviceFlow"}
    with oidc_provider(OidcOptions(features=features)) as op:
        found = _discovered(op)
        who = Desk(op.issuer).run(register(found, REDIRECT_URI, client_name="Hermes"))
        assert not may_use_device(who)
        assert "POST /reg 400" not in op.log()


@pytest.mark.node
@covers("device-grant")
def test_a_certified_server_tells_an_older_client_that_it_may_not() -> None:
    with oidc_provider() as op:
        desk, found = Desk(op.issuer), _discovered(op)
        plain = server(registration_endpoint=found.registration_endpoint)
        who = desk.run(register(plain, REDIRECT_URI, client_name="Hermes"))
        assert not may_use_device(who)
        with pytest.raises(DeviceRefused) as caught:
            desk.begin(found, who, "mcp:tools", "http://127.0.0.1:9/mcp")
        # Not the unauthorized_client of RFC 6749 section 5.2; so ask `may_use_device` first.
        assert caught.value.error == "invalid_request"


def _discovered(op: OidcProvider) -> AuthorizationServer:
    found = Desk(op.issuer).run(discover_authorization_server(op.issuer))
    assert found is not None
    return found


@covers("device-poll", "device-endpoint", "no-secret")
@pytest.mark.parametrize(
    ("decide", "granted"), [(approve_at_demo, True), (deny_at_demo, False)], ids=["approved", "denied"]
)
def test_the_demo_from_an_openid_document_through_slow_down_and_outage_to_the_decision(
    decide: Callable[[str], str],
    granted: bool,  # noqa: FBT001
) -> None:
    behaviour = Behaviour(
        with_device=True, device_only_in_openid=True, metadata_at=("rfc8414", "openid_appended")
    )
    now = NOW
    with running(behaviour, clock=lambda: now) as demo:
        guard(demo.server.minted)
        desk = Desk(demo.mcp_url)
        first = desk.run(discover(demo.mcp_url, Challenge())).authorization_server
        assert first.device_authorization_endpoint is None
        found = desk.run(find_device_endpoint(demo.issuer, first))
        who = desk.run(register(found, REDIRECT_URI, client_name="Hermes"))
        pending: Pending | Tokens | Failed = desk.begin(found, who, "mcp:tools", demo.mcp_url)
        assert isinstance(pending, Pending)
        waits: list[tuple[float, float]] = []
        for hurry in (0.0, 2.0, 0.0, 0.0):
            before, now = now, pending.next_at - hurry
            if len(waits) == 2:
                demo.server.fail_next("device_poll", status=502, body=HTML)
            pending = next_poll(pending, desk.run(once(poll_request(pending))), now)
            assert isinstance(pending, Pending), pending
            waits.append((now - before, pending.next_at - now))
        # Pending; too early, so 5 s more; a gateway's failure, so twice that; and on as before.
        assert [wait for _, wait in waits] == [5, 10, 20, 10]
        assert pending.request.authorization.verification_uri_complete is not None
        decide(pending.request.authorization.verification_uri_complete)
        now = pending.next_at
        end = next_poll(pending, desk.run(once(poll_request(pending))), now)
        if granted:
            assert isinstance(end, Tokens), end
            assert scope_text(end.scope or ()) == "mcp:tools"
        else:
            assert isinstance(end, Failed)
            assert isinstance(end.error, AuthorizationDenied)
        assert demo.server.count("authorization_server_metadata") == 2
        assert f"{RFC8414}" in [request.path for request in demo.server.requests]

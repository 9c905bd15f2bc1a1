"""Device polling: the next state after each outcome of a poll."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import (
    AddressRefused,
    AuthorizationDenied,
    LoginExpired,
    MalformedResponse,
    NetworkError,
    RedirectRefused,
    RegistrationError,
    ResponseTooLarge,
    TokenError,
    Unreachable,
)
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT
from hermes_mcp_auth_remote.oauth.device_polling import advance_poll, poll_request
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Response
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import form_of, make_response
from tests.oauth.builders import HTML, ISSUER, NOW, TOKEN_RESPONSE, client
from tests.oauth.poll_outcomes import (
    BAD_GATEWAY,
    DEVICE_CODE,
    PENDING,
    SLOW_DOWN,
    TIMED_OUT,
    TOKENS_GRANTED,
    expect_failure,
    expect_pending,
    make_poll_state,
)
from tests.requirements import covers


@covers("device-poll", "resource-everywhere")
def test_a_poll_sends_grant_device_code_client_and_resource() -> None:
    request = poll_request(make_poll_state(resource="https://mcp.example"))
    assert (request.method, request.url) == ("POST", f"{ISSUER}/token")
    assert form_of(request) == {
        "grant_type": DEVICE_GRANT,
        "device_code": DEVICE_CODE,
        "client_id": "client-1",
        "resource": "https://mcp.example",
    }
    assert "resource" not in form_of(poll_request(make_poll_state()))
    oauth_client = client(auth_method="private_key_jwt")
    signed = poll_request(
        make_poll_state(poll_client=oauth_client), sign=lambda _, audience: Secret(f"for {audience}")
    )
    assert form_of(signed)["client_assertion"] == f"for {ISSUER}"
    with pytest.raises(RegistrationError):
        poll_request(make_poll_state(poll_client=oauth_client))


@covers("device-poll")
def test_the_first_poll_waits_for_the_interval_but_not_past_expiry() -> None:
    poll_state = make_poll_state(interval=7, lifetime=60)
    assert (poll_state.next_at, poll_state.next_action_at) == (NOW + 7, NOW + 7)
    assert poll_state.parameters.expires_at == NOW + 60
    assert make_poll_state(interval=100, lifetime=60).next_action_at == NOW + 60, (
        "no poll is due after expiry"
    )


@covers("device-poll")
@pytest.mark.parametrize("status", [400, 428, 200, 403, 500])
def test_quirk_46_authorization_pending_keeps_the_interval_at_any_status(status: int) -> None:
    after = expect_pending(
        make_poll_state(), make_response(status, {"error": "authorization_pending"}), NOW + 5
    )
    assert (after.next_at, after.interval_seconds) == (NOW + 10, 5)


@covers("device-poll")
def test_quirk_46_slow_down_adds_five_seconds_to_the_interval() -> None:
    slowed = expect_pending(make_poll_state(), SLOW_DOWN, NOW + 5)
    assert (slowed.next_at, slowed.interval_seconds) == (NOW + 15, 10)
    later = expect_pending(slowed, PENDING, NOW + 15)
    assert (later.next_at, later.interval_seconds) == (NOW + 25, 10)
    assert expect_pending(later, SLOW_DOWN, NOW + 25).interval_seconds == 15


@covers("device-poll")
@pytest.mark.parametrize(
    ("new_interval", "interval"), [(12, 12), (3, 10), ("20", 20), (-1, 10), (None, 10), ("x", 10), ([], 10)]
)
def test_slow_down_with_a_longer_interval_uses_it(new_interval: object, interval: float) -> None:
    after = expect_pending(
        make_poll_state(), make_response(200, {"error": "slow_down", "interval": new_interval}), NOW + 5
    )
    assert after.interval_seconds == interval


@covers("device-poll")
@pytest.mark.parametrize(
    "lost",
    [
        TIMED_OUT,
        Unreachable("x"),
        NetworkError("x"),
        BAD_GATEWAY,
        make_response(429),
        make_response(408),
        make_response(503, {}),
    ],
)
def test_quirk_46_failed_polls_double_the_wait_until_a_response_arrives(
    lost: Response | NetworkError,
) -> None:
    poll_state, now, waits = make_poll_state(lifetime=1800), NOW, []
    for _ in range(5):
        now = poll_state.next_at
        poll_state = expect_pending(poll_state, lost, now)
        waits.append(poll_state.next_at - now)
    assert waits == [10, 20, 40, 40, 40]
    assert poll_state.interval_seconds == 5
    now = poll_state.next_at
    poll_state = expect_pending(poll_state, PENDING, now)
    assert (poll_state.next_at - now, poll_state.failures) == (5, 0)
    poll_state = expect_pending(poll_state, lost, now + 5)
    assert poll_state.next_at - now == 15


@covers("device-poll")
@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [("60", 60), ("3", 10), ("-5", 10), ("soon", 10), ("Wed, 21 Oct 2026 07:28:00 GMT", 10), ("nan", 10)],
)
def test_a_longer_retry_after_header_is_respected(retry_after: str, wait: float) -> None:
    after = expect_pending(make_poll_state(), make_response(503, HTML, {"retry-after": retry_after}), NOW + 5)
    assert after.next_at - (NOW + 5) == wait


@covers("device-poll")
@pytest.mark.parametrize("status", [400, 403, 200])
@pytest.mark.parametrize("word", ["access_denied", "authorization_declined"])
def test_quirk_46_a_denial_ends_polling_with_access_denied(status: int, word: str) -> None:
    error = expect_failure(
        make_poll_state(), make_response(status, {"error": word, "error_description": "x"})
    )
    assert isinstance(error, AuthorizationDenied)
    assert error.error == "access_denied"
    assert str(error) == "Access was denied at as.example."


@covers("device-poll")
def test_quirk_46_an_expired_code_advises_to_get_a_new_one() -> None:
    error = expect_failure(make_poll_state(), make_response(400, {"error": "expired_token"}))
    assert isinstance(error, LoginExpired)
    assert "new code" in error.advice


@covers("device-poll")
@pytest.mark.parametrize(
    "outcome",
    [None, PENDING, SLOW_DOWN, TIMED_OUT, BAD_GATEWAY, make_response(400, {"error": "invalid_grant"})],
)
def test_polling_ends_at_the_local_expiry_time_after_any_response(
    outcome: Response | NetworkError | None,
) -> None:
    assert isinstance(expect_failure(make_poll_state(lifetime=60), outcome, NOW + 60), LoginExpired)


@covers("device-poll")
def test_late_tokens_are_accepted_and_no_outcome_changes_nothing() -> None:
    poll_state = make_poll_state(lifetime=60)
    assert isinstance(advance_poll(poll_state, TOKENS_GRANTED, NOW + 61), Tokens)
    assert advance_poll(poll_state, None, NOW + 59.9) is poll_state


@covers("device-poll")
def test_tokens_without_a_scope_get_the_requested_one() -> None:
    tokens = advance_poll(make_poll_state(), TOKENS_GRANTED, NOW + 5)
    assert tokens == Tokens(
        Secret("fresh-access"),
        None,
        frozenset({"mcp:tools"}),
        expires_at=NOW + 3605,
        obtained_at=NOW + 5,
    )
    narrowed = advance_poll(make_poll_state(), make_response(200, {**TOKEN_RESPONSE, "scope": "less"}), NOW)
    assert isinstance(narrowed, Tokens)
    assert narrowed.scope == frozenset({"less"})


@covers("device-poll", "stale-client")
@pytest.mark.parametrize(
    "error", ["invalid_grant", "invalid_client", "unauthorized_client", "unsupported_grant_type"]
)
def test_any_other_error_ends_polling_with_its_code(error: str) -> None:
    failure = expect_failure(make_poll_state(), make_response(400, {"error": error}))
    assert isinstance(failure, TokenError)
    assert failure.error == error


@covers("device-poll")
@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error", "rate_limited"])
def test_a_temporary_error_does_not_end_polling(error: str) -> None:
    assert expect_pending(make_poll_state(), make_response(400, {"error": error}), NOW + 5).failures == 1


@covers("device-poll")
def test_an_unknown_error_code_ends_polling_and_is_the_server_message() -> None:
    failure = expect_failure(make_poll_state(), make_response(200, {"error": "odd"}))
    assert isinstance(failure, TokenError)
    assert (failure.error, failure.server_message) == ("unknown error", "odd")


@covers("auth-method", "device-poll")
def test_quirk_17_basic_refused_as_invalid_client_switches_once_to_post() -> None:
    oauth_client = client(client_secret=Secret("s3cret"), auth_method="client_secret_basic")
    refused = make_response(401, {"error": "invalid_client"})
    poll_state = make_poll_state(poll_client=oauth_client)
    assert "client_secret" not in form_of(poll_request(poll_state))
    posting = expect_pending(poll_state, refused, NOW + 5)
    assert posting.next_at == NOW + 10
    assert form_of(poll_request(posting))["client_secret"] == "s3cret"
    assert poll_request(posting).headers == poll_request(make_poll_state()).headers
    failure = expect_failure(posting, refused, NOW + 10)
    assert isinstance(failure, TokenError)
    assert failure.error == "invalid_client"


@covers("device-poll")
@pytest.mark.parametrize(
    "error",
    [RedirectRefused("x"), AddressRefused("x"), ResponseTooLarge("x")],
    ids=lambda e: type(e).__name__,
)
def test_a_permanent_network_error_ends_polling(error: NetworkError) -> None:
    assert expect_failure(make_poll_state(), error) is error


@covers("device-poll")
@pytest.mark.parametrize(
    "outcome",
    [make_response(200, HTML), make_response(404, HTML), make_response(200, {}), make_response(302)],
)
def test_an_invalid_response_ends_polling(outcome: Response) -> None:
    assert isinstance(expect_failure(make_poll_state(), outcome), MalformedResponse | TokenError)


@covers("no-secret")
def test_no_error_or_repr_contains_the_code_or_secret() -> None:
    oauth_client = client(client_secret=Secret("s3cret"), auth_method="client_secret_post")
    poll_state = make_poll_state(poll_client=oauth_client)
    description = f"{DEVICE_CODE} with s3cret"
    refused = make_response(400, {"error": f"odd {DEVICE_CODE}", "error_description": description})
    for outcome in (
        refused,
        make_response(400, description),
        make_response(400, {"error": "access_denied", "error_description": description}),
    ):
        error = expect_failure(poll_state, outcome)
        for text in (
            str(error),
            repr(error),
            error.advice,
            repr(poll_state),
            repr(advance_poll(poll_state, outcome, NOW)),
        ):
            assert DEVICE_CODE not in text
            assert "s3cret" not in text
            assert "WDJB" not in text

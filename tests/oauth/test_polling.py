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
from tests.oauth.parties import GRANTED, HTML, ISSUER, NOW, client
from tests.oauth.polls import BROKEN, DEVICE_CODE, LOST, PENDING, SLOW, TAKEN, ended, still, waiting
from tests.playbook import answer, form_of
from tests.requirements import covers


@covers("device-poll", "resource-everywhere")
def test_a_poll_carries_grant_device_code_client_and_resource() -> None:
    request = poll_request(waiting(resource="https://mcp.example"))
    assert (request.method, request.url) == ("POST", f"{ISSUER}/token")
    assert form_of(request) == {
        "grant_type": DEVICE_GRANT,
        "device_code": DEVICE_CODE,
        "client_id": "client-1",
        "resource": "https://mcp.example",
    }
    assert "resource" not in form_of(poll_request(waiting()))
    who = client(auth_method="private_key_jwt")
    signed = poll_request(waiting(who=who), sign=lambda _, audience: Secret(f"for {audience}"))
    assert form_of(signed)["client_assertion"] == f"for {ISSUER}"
    with pytest.raises(RegistrationError):
        poll_request(waiting(who=who))


@covers("device-poll")
def test_the_first_poll_waits_for_the_interval_and_the_end_comes_by_the_own_clock() -> None:
    pending = waiting(interval=7, lifetime=60)
    assert (pending.next_at, pending.next_action_at) == (NOW + 7, NOW + 7)
    assert pending.parameters.expires_at == NOW + 60
    assert waiting(interval=100, lifetime=60).next_action_at == NOW + 60, "no poll is due after expiry"


@covers("device-poll")
@pytest.mark.parametrize("status", [400, 428, 200, 403, 500])
def test_quirk_46_pending_keeps_the_interval_whatever_the_status(status: int) -> None:
    after = still(waiting(), answer(status, {"error": "authorization_pending"}), NOW + 5)
    assert (after.next_at, after.interval_seconds) == (NOW + 10, 5)


@covers("device-poll")
def test_quirk_46_slow_down_adds_five_seconds_for_good() -> None:
    once = still(waiting(), SLOW, NOW + 5)
    assert (once.next_at, once.interval_seconds) == (NOW + 15, 10)
    later = still(once, PENDING, NOW + 15)
    assert (later.next_at, later.interval_seconds) == (NOW + 25, 10)
    assert still(later, SLOW, NOW + 25).interval_seconds == 15


@covers("device-poll")
@pytest.mark.parametrize(
    ("new_interval", "interval"), [(12, 12), (3, 10), ("20", 20), (-1, 10), (None, 10), ("x", 10), ([], 10)]
)
def test_github_says_the_new_interval_and_a_shorter_one_does_not_count(
    new_interval: object, interval: float
) -> None:
    after = still(waiting(), answer(200, {"error": "slow_down", "interval": new_interval}), NOW + 5)
    assert after.interval_seconds == interval


@covers("device-poll")
@pytest.mark.parametrize(
    "lost", [LOST, Unreachable("x"), NetworkError("x"), BROKEN, answer(429), answer(408), answer(503, {})]
)
def test_quirk_46_without_an_answer_the_wait_doubles_and_an_answer_ends_that(
    lost: Response | NetworkError,
) -> None:
    pending, now, waits = waiting(lifetime=1800), NOW, []
    for _ in range(5):
        now = pending.next_at
        pending = still(pending, lost, now)
        waits.append(pending.next_at - now)
    assert waits == [10, 20, 40, 40, 40]
    assert pending.interval_seconds == 5
    now = pending.next_at
    pending = still(pending, PENDING, now)
    assert (pending.next_at - now, pending.failures) == (5, 0)
    pending = still(pending, lost, now + 5)
    assert pending.next_at - now == 15


@covers("device-poll")
@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [("60", 60), ("3", 10), ("-5", 10), ("soon", 10), ("Wed, 21 Oct 2026 07:28:00 GMT", 10), ("nan", 10)],
)
def test_a_server_that_names_its_pause_is_given_it(retry_after: str, wait: float) -> None:
    after = still(waiting(), answer(503, HTML, {"retry-after": retry_after}), NOW + 5)
    assert after.next_at - (NOW + 5) == wait


@covers("device-poll")
@pytest.mark.parametrize("status", [400, 403, 200])
@pytest.mark.parametrize("word", ["access_denied", "authorization_declined"])
def test_quirk_46_a_denial_says_so(status: int, word: str) -> None:
    error = ended(waiting(), answer(status, {"error": word, "error_description": "x"}))
    assert isinstance(error, AuthorizationDenied)
    assert error.error == "access_denied"
    assert str(error) == "Access was denied at as.example."


@covers("device-poll")
def test_quirk_46_an_expired_code_offers_a_new_one() -> None:
    error = ended(waiting(), answer(400, {"error": "expired_token"}))
    assert isinstance(error, LoginExpired)
    assert "new code" in error.advice


@covers("device-poll")
@pytest.mark.parametrize(
    "outcome", [None, PENDING, SLOW, LOST, BROKEN, answer(400, {"error": "invalid_grant"})]
)
def test_by_the_own_clock_it_is_over_whatever_the_server_says(
    outcome: Response | NetworkError | None,
) -> None:
    assert isinstance(ended(waiting(lifetime=60), outcome, NOW + 60), LoginExpired)


@covers("device-poll")
def test_tokens_that_come_late_are_still_tokens_and_time_alone_changes_nothing() -> None:
    pending = waiting(lifetime=60)
    assert isinstance(advance_poll(pending, TAKEN, NOW + 61), Tokens)
    assert advance_poll(pending, None, NOW + 59.9) is pending


@covers("device-poll")
def test_tokens_are_read_as_everywhere_and_a_scope_that_is_left_out_is_the_one_asked_for() -> None:
    tokens = advance_poll(waiting(), TAKEN, NOW + 5)
    assert tokens == Tokens(
        Secret("fresh-access"),
        None,
        frozenset({"mcp:tools"}),
        expires_at=NOW + 3605,
        obtained_at=NOW + 5,
    )
    narrowed = advance_poll(waiting(), answer(200, {**GRANTED, "scope": "less"}), NOW)
    assert isinstance(narrowed, Tokens)
    assert narrowed.scope == frozenset({"less"})


@covers("device-poll", "stale-client")
@pytest.mark.parametrize(
    "error", ["invalid_grant", "invalid_client", "unauthorized_client", "unsupported_grant_type"]
)
def test_any_other_error_ends_it_and_keeps_its_code(error: str) -> None:
    trouble = ended(waiting(), answer(400, {"error": error}))
    assert isinstance(trouble, TokenError)
    assert trouble.error == error


@covers("device-poll")
@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error", "rate_limited"])
def test_an_error_that_passes_does_not_end_it(error: str) -> None:
    assert still(waiting(), answer(400, {"error": error}), NOW + 5).failures == 1


@covers("device-poll")
def test_an_error_that_no_standard_lists_ends_it_and_is_the_servers_words() -> None:
    trouble = ended(waiting(), answer(200, {"error": "odd"}))
    assert isinstance(trouble, TokenError)
    assert (trouble.error, trouble.server_message) == ("unknown error", "odd")


@covers("auth-method", "device-poll")
def test_quirk_17_basic_refused_as_invalid_client_goes_on_with_post_and_only_once() -> None:
    who = client(client_secret=Secret("s3cret"), auth_method="client_secret_basic")
    refused = answer(401, {"error": "invalid_client"})
    pending = waiting(who=who)
    assert "client_secret" not in form_of(poll_request(pending))
    posting = still(pending, refused, NOW + 5)
    assert posting.next_at == NOW + 10
    assert form_of(poll_request(posting))["client_secret"] == "s3cret"
    assert poll_request(posting).headers == poll_request(waiting()).headers
    trouble = ended(posting, refused, NOW + 10)
    assert isinstance(trouble, TokenError)
    assert trouble.error == "invalid_client"


@covers("device-poll")
@pytest.mark.parametrize(
    "error",
    [RedirectRefused("x"), AddressRefused("x"), ResponseTooLarge("x")],
    ids=lambda e: type(e).__name__,
)
def test_a_way_that_waiting_does_not_mend_ends_it(error: NetworkError) -> None:
    assert ended(waiting(), error) is error


@covers("device-poll")
@pytest.mark.parametrize("outcome", [answer(200, HTML), answer(404, HTML), answer(200, {}), answer(302)])
def test_an_answer_that_is_none_ends_it_instead_of_waiting_for_the_clock(outcome: Response) -> None:
    assert isinstance(ended(waiting(), outcome), MalformedResponse | TokenError)


@covers("no-secret")
def test_neither_code_nor_secret_is_in_an_error_or_a_repr() -> None:
    who = client(client_secret=Secret("s3cret"), auth_method="client_secret_post")
    pending = waiting(who=who)
    words = f"{DEVICE_CODE} with s3cret"
    refused = answer(400, {"error": f"odd {DEVICE_CODE}", "error_description": words})
    for outcome in (
        refused,
        answer(400, words),
        answer(400, {"error": "access_denied", "error_description": words}),
    ):
        error = ended(pending, outcome)
        for shown in (
            str(error),
            repr(error),
            error.advice,
            repr(pending),
            repr(advance_poll(pending, outcome, NOW)),
        ):
            assert DEVICE_CODE not in shown
            assert "s3cret" not in shown
            assert "WDJB" not in shown

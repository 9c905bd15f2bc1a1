"""Device polling with random outcomes: no early poll, no shorter interval, one end and no crash."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import (
    LoginExpired,
    McpAuthError,
    NetworkError,
    Unreachable,
)
from hermes_mcp_auth_remote.oauth.device import read_device_authorization_response
from hermes_mcp_auth_remote.oauth.device_polling import (
    PollFailure,
    PollState,
    advance_poll,
    poll_request,
    start_polling,
)
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Response
from tests.exchange_script import make_response
from tests.oauth.builders import HTML, ISSUER, NOW, client, server
from tests.oauth.poll_outcomes import (
    BAD_GATEWAY,
    DEVICE_CODE,
    PENDING,
    SLOW_DOWN,
    TIMED_OUT,
    TOKENS_GRANTED,
    expect_failure,
    make_poll_state,
)
from tests.oauth.test_hostile_responses import JUNK, STATUS
from tests.requirements import covers

PENDING_OUTCOMES = st.sampled_from(
    [PENDING, SLOW_DOWN, TIMED_OUT, BAD_GATEWAY, Unreachable("x"), make_response(429), None]
)
FINAL_OUTCOMES = st.sampled_from(
    [
        TOKENS_GRANTED,
        make_response(400, {"error": "access_denied"}),
        make_response(400, {"error": "expired_token"}),
        make_response(200, HTML),
    ]
)


@covers("device-poll")
@given(
    st.lists(st.tuples(PENDING_OUTCOMES, st.floats(0, 30)), max_size=40),
    FINAL_OUTCOMES,
    st.floats(1, 60),
    st.floats(1, 1800),
)
def test_no_poll_is_early_no_interval_shrinks_and_polling_ends_once(
    outcomes: list[tuple[Response | NetworkError | None, float]],
    last: Response,
    interval: float,
    lifetime: float,
) -> None:
    poll_state = make_poll_state(interval=interval, lifetime=lifetime)
    polled_at, slow_downs = NOW, 0
    for outcome, late in outcomes:
        now = poll_state.next_action_at + late
        if outcome is not None:
            assert (
                now >= polled_at + poll_state.interval_seconds
                or poll_state.next_action_at == poll_state.parameters.expires_at
            )
        after = advance_poll(poll_state, outcome, now)
        if isinstance(after, PollFailure):
            assert now >= poll_state.parameters.expires_at
            assert isinstance(after.error, LoginExpired)
            return
        assert isinstance(after, PollState), "no outcome in this loop grants tokens"
        assert now < after.parameters.expires_at
        assert after.parameters == poll_state.parameters
        assert after.interval_seconds >= poll_state.interval_seconds
        if outcome is None:
            assert after is poll_state
            continue
        slow_downs += outcome is SLOW_DOWN
        assert after.interval_seconds == pytest.approx(interval + 5 * slow_downs)
        assert after.next_at >= now + after.interval_seconds
        if after.failures:
            assert after.next_at >= now + 2 * after.interval_seconds
        poll_state, polled_at = after, now
    end = advance_poll(poll_state, last, poll_state.next_at)
    assert isinstance(end, Tokens) is (last is TOKENS_GRANTED)
    assert not isinstance(end, PollState)


@covers("no-crash")
@given(
    st.dictionaries(
        st.sampled_from(["error", "error_description", "interval", "access_token", "expires_in", "scope"]),
        JUNK,
    ),
    STATUS,
    st.sampled_from(["application/json", "text/html", ""]),
    st.text(max_size=12),
)
def test_invalid_members_of_a_poll_response_give_an_outcome(
    document: dict[str, object], status: int, media_type: str, retry_after: str
) -> None:
    headers = {"content-type": media_type, "retry-after": retry_after}
    body = json.dumps(document).encode()
    after = advance_poll(make_poll_state(), make_response(status, body, headers), NOW + 5)
    repr(after)
    if isinstance(after, PollState):
        assert after.next_at >= NOW + 5 + after.interval_seconds
    elif isinstance(after, PollFailure):
        assert isinstance(after.error, McpAuthError)


@covers("no-crash")
@given(
    st.binary(), STATUS, st.sampled_from(["application/json", "application/x-www-form-urlencoded", "\x00"])
)
def test_any_body_of_a_poll_response_gives_an_outcome(body: bytes, status: int, media_type: str) -> None:
    repr(advance_poll(make_poll_state(), make_response(status, body, {"content-type": media_type}), NOW + 5))


@covers("no-crash", "device-answer")
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "device_code",
                "user_code",
                "verification_uri",
                "verification_uri_complete",
                "expires_in",
                "interval",
                "error",
                "error_description",
            ]
        ),
        JUNK,
        min_size=1,
    ),
    STATUS,
)
def test_invalid_members_of_a_device_authorization_are_refused_or_usable(
    changed: dict[str, object], status: int
) -> None:
    document = {
        "device_code": DEVICE_CODE,
        "user_code": "WDJB-MJHT",
        "verification_uri": f"{ISSUER}/device",
        **changed,
    }
    try:
        device = read_device_authorization_response(make_response(status, document), ISSUER)
    except McpAuthError:
        return
    assert device.user_code.isprintable()
    assert device.verification_uri.startswith("https://")
    poll_state = start_polling(server(), client(), device, NOW)
    assert NOW < poll_state.next_action_at <= NOW + 1800
    poll_request(poll_state)


@covers("linear", "no-crash")
@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b"a=b&" * 250_000, b'{"error":"' + b"a" * 1_000_000 + b'"}'],
)
def test_a_hostile_poll_response_of_a_megabyte_is_read_in_linear_time(body: bytes) -> None:
    for media_type in ("application/json", "text/plain"):
        hostile = make_response(200, body, {"content-type": media_type})
        assert len(str(expect_failure(make_poll_state(), hostile))) < 1000
        with pytest.raises(McpAuthError):
            read_device_authorization_response(hostile, ISSUER)

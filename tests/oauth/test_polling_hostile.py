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
from tests.oauth.parties import HTML, ISSUER, NOW, client, server
from tests.oauth.polls import BROKEN, DEVICE_CODE, LOST, PENDING, SLOW, TAKEN, ended, waiting
from tests.oauth.test_hostile import JUNK, STATUS
from tests.playbook import answer
from tests.requirements import covers

WAITING = st.sampled_from([PENDING, SLOW, LOST, BROKEN, Unreachable("x"), answer(429), None])
ENDING = st.sampled_from(
    [
        TAKEN,
        answer(400, {"error": "access_denied"}),
        answer(400, {"error": "expired_token"}),
        answer(200, HTML),
    ]
)


@covers("device-poll")
@given(
    st.lists(st.tuples(WAITING, st.floats(0, 30)), max_size=40),
    ENDING,
    st.floats(1, 60),
    st.floats(1, 1800),
)
def test_no_poll_is_early_no_interval_shrinks_and_it_ends_exactly_once(
    outcomes: list[tuple[Response | NetworkError | None, float]],
    last: Response,
    interval: float,
    lifetime: float,
) -> None:
    pending = waiting(interval=interval, lifetime=lifetime)
    asked_at, slowed = NOW, 0
    for outcome, late in outcomes:
        now = pending.next_action_at + late
        if outcome is not None:
            assert (
                now >= asked_at + pending.interval_seconds
                or pending.next_action_at == pending.parameters.expires_at
            )
        after = advance_poll(pending, outcome, now)
        if isinstance(after, PollFailure):
            assert now >= pending.parameters.expires_at
            assert isinstance(after.error, LoginExpired)
            return
        assert isinstance(after, PollState), "no outcome in this loop grants tokens"
        assert now < after.parameters.expires_at
        assert after.parameters == pending.parameters
        assert after.interval_seconds >= pending.interval_seconds
        if outcome is None:
            assert after is pending
            continue
        slowed += outcome is SLOW
        assert after.interval_seconds == pytest.approx(interval + 5 * slowed)
        assert after.next_at >= now + after.interval_seconds
        if after.failures:
            assert after.next_at >= now + 2 * after.interval_seconds
        pending, asked_at = after, now
    end = advance_poll(pending, last, pending.next_at)
    assert isinstance(end, Tokens) is (last is TAKEN)
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
def test_junk_in_a_polls_answer_is_an_outcome_and_never_a_crash(
    document: dict[str, object], status: int, media_type: str, retry_after: str
) -> None:
    headers = {"content-type": media_type, "retry-after": retry_after}
    body = json.dumps(document).encode()
    after = advance_poll(waiting(), answer(status, body, headers), NOW + 5)
    repr(after)
    if isinstance(after, PollState):
        assert after.next_at >= NOW + 5 + after.interval_seconds
    elif isinstance(after, PollFailure):
        assert isinstance(after.error, McpAuthError)


@covers("no-crash")
@given(
    st.binary(), STATUS, st.sampled_from(["application/json", "application/x-www-form-urlencoded", "\x00"])
)
def test_any_body_of_a_polls_answer_is_an_outcome(body: bytes, status: int, media_type: str) -> None:
    repr(advance_poll(waiting(), answer(status, body, {"content-type": media_type}), NOW + 5))


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
def test_junk_in_a_device_authorization_is_refused_or_can_be_shown_and_polled(
    changed: dict[str, object], status: int
) -> None:
    document = {
        "device_code": DEVICE_CODE,
        "user_code": "WDJB-MJHT",
        "verification_uri": f"{ISSUER}/device",
        **changed,
    }
    try:
        device = read_device_authorization_response(answer(status, document), ISSUER)
    except McpAuthError:
        return
    assert device.user_code.isprintable()
    assert device.verification_uri.startswith("https://")
    pending = start_polling(server(), client(), device, NOW)
    assert NOW < pending.next_action_at <= NOW + 1800
    poll_request(pending)


@covers("linear", "no-crash")
@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b"a=b&" * 250_000, b'{"error":"' + b"a" * 1_000_000 + b'"}'],
)
def test_a_megabyte_of_hostile_answer_is_an_outcome_at_once(body: bytes) -> None:
    for media_type in ("application/json", "text/plain"):
        hostile = answer(200, body, {"content-type": media_type})
        assert len(str(ended(waiting(), hostile))) < 1000
        with pytest.raises(McpAuthError):
            read_device_authorization_response(hostile, ISSUER)

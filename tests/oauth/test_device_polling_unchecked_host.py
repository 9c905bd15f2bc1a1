"""A device poll if its host name cannot be resolved and checked, for a while or permanently."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import HostNotChecked
from hermes_mcp_auth_remote.oauth.device_polling import MAX_UNCHECKED_FAILURES
from tests.oauth.builders import NOW
from tests.oauth.poll_outcomes import PENDING, expect_failure, expect_pending, make_poll_state
from tests.requirements import covers


@covers("device-poll", "unchecked-host")
def test_only_repeated_resolution_failures_of_the_host_end_polling() -> None:
    refused = HostNotChecked("x")
    poll_state = make_poll_state()
    for _ in range(MAX_UNCHECKED_FAILURES):
        poll_state = expect_pending(poll_state, refused, poll_state.next_at)
    assert poll_state.next_at - NOW >= 60
    assert expect_pending(poll_state, PENDING, poll_state.next_at).failures == 0
    assert expect_failure(poll_state, refused, poll_state.next_at) is refused

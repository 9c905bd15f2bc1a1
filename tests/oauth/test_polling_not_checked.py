"""A device poll whose host name cannot be resolved and checked, for a while or permanently."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import HostNotChecked
from hermes_mcp_auth_remote.oauth.device_polling import MAX_UNCHECKED_FAILURES
from tests.oauth.parties import NOW
from tests.oauth.polls import PENDING, ended, still, waiting
from tests.requirements import covers


@covers("device-poll", "unchecked-host")
def test_a_name_that_is_not_resolved_for_a_moment_ends_no_login_and_one_that_never_is_does() -> None:
    refused = HostNotChecked("x")
    pending = waiting()
    for _ in range(MAX_UNCHECKED_FAILURES):
        pending = still(pending, refused, pending.next_at)
    assert pending.next_at - NOW >= 60
    assert still(pending, PENDING, pending.next_at).failures == 0
    assert ended(pending, refused, pending.next_at) is refused

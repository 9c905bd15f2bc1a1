"""Any sequence of events: a session lasts as long as the server allows, in every process."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hermes_mcp_auth_remote.errors import AuthorizationRequired, NetworkError
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.cached_token import CachedToken
from hermes_mcp_auth_remote.service.refresh import RETRY_SECONDS
from hermes_mcp_auth_remote.service.sessions import STORE_CHECK_SECONDS, Session
from hermes_mcp_auth_remote.service.single_flight import SingleFlight
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Secret, Server
from tests.demo.manual_client import ManualClock
from tests.oauth.builders import URL
from tests.requirements import covers
from tests.service.helpers import KEY
from tests.service.model import ServerModel, full_disk

pytestmark = pytest.mark.slow

REFUSED = ['Bearer error="invalid_token"']
SECONDS = st.sampled_from([0.0, 1.0, 5.0, 15.0, 60.0, 3300.0, 3541.0, 3600.0, 3600.0])
PROCESSES = st.sampled_from(["first", "second"])


class BlockingSingleFlight(SingleFlight[CachedToken]):
    """Ends each flight before `submit` returns, so that no result depends on timing."""

    def submit(
        self,
        key: Hashable,
        start: Callable[[], Coroutine[object, object, CachedToken]],
        lane_key: Hashable = None,
    ) -> Future[CachedToken]:
        flight = super().submit(key, start, lane_key)
        wait([flight])
        return flight


class SessionStateMachine(RuleBasedStateMachine):
    """Two processes with one home, one strict server, and another program that writes the store."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.server = ServerModel(self.clock)
        self.store = FileStore(Path(self.home.name))
        self.sessions = {name: self._session(name) for name in ("first", "second")}
        self.backup: tuple[Tokens, bytes] | None = None
        self.restore_counts: Counter[str] = Counter()
        # For each process that could not store its tokens: the access token on the disk, and the new
        # refresh token.
        self.in_memory: dict[str, tuple[str, str]] = {}
        self.log_in()

    def teardown(self) -> None:
        self.home.cleanup()

    def _session(self, name: str) -> Session:
        service = AuthService(Path(self.home.name), run_exchange=self.server.runner(name), clock=self.clock)
        service._deps = replace(service._deps, refresh_flights=BlockingSingleFlight(name))
        return service.session(Server("notes", URL))

    @property
    def stored(self) -> Tokens:
        tokens = self.store.read(KEY).credentials.tokens
        assert tokens is not None
        return tokens

    @precondition(lambda self: not self.server.can_refresh(self.stored))
    @rule()
    def log_in_again(self) -> None:
        self.log_in()

    @rule()
    def log_in(self) -> None:
        self.store.save_login(KEY, self.server.log_in())

    @rule(name=PROCESSES)
    def restart(self, name: str) -> None:
        self.sessions[name] = self._session(name)
        self.in_memory.pop(name, None)
        self.server.failed_at.pop(name, None)
        for key in [key for key in self.server.response_counts if key[0] == name]:
            del self.server.response_counts[key]

    @rule(calls=st.lists(st.tuples(PROCESSES, SECONDS), min_size=1, max_size=4))
    def send_requests(self, calls: list[tuple[str, float]]) -> None:
        for name, seconds in calls:
            self.send_request(name, seconds)

    @rule(name=PROCESSES, waits=st.lists(SECONDS, min_size=1, max_size=3))
    def send_requests_on_a_full_disk(self, name: str, waits: list[float]) -> None:
        for seconds in waits:
            self.send_request(name, seconds, full=True)

    @rule(name=PROCESSES, seconds=SECONDS, lost=st.booleans())
    def send_request_during_a_fault(self, name: str, seconds: float, *, lost: bool) -> None:
        self.server.is_down, self.server.drop_next_response = not lost, lost
        self.send_request(name, seconds)
        self.server.is_down = self.server.drop_next_response = False

    def send_request(self, name: str, seconds: float, *, full: bool = False) -> None:
        """Some seconds later, send a request. After a 401, send it once more, as `auth.flow` does."""
        self.clock.now += seconds
        session, before, last_issued = self.sessions[name], self.stored, self.server.last_issued.get(name)
        is_hindered = self.server.is_down or self.server.drop_next_response or self.is_backing_off(name)
        must_succeed = self.has_usable_refresh_token(name) and not is_hindered
        try:
            with full_disk() if full else nullcontext():
                header = asyncio.run(session.header())
                if not self.server.accepts(header):
                    header = self.retry_after_401(session, header)
        except AuthorizationRequired:
            event("a login is needed")
            assert not must_succeed
            assert not self.has_usable_refresh_token(name), "a usable session asked for a login"
        except NetworkError:
            event("the network failed")
            assert is_hindered
        else:
            event("used unsaved tokens" if name in self.in_memory else "used stored tokens")
            assert self.server.accepts(header)
            if seconds >= STORE_CHECK_SECONDS and not (full or name in self.in_memory):
                assert header in {before.authorization_header, self.stored.authorization_header}, (
                    "the process did not notice a change of the store"
                )
        assert self.family_of(self.stored) is self.family_of(before), "another login was overwritten"
        if self.server.last_issued.get(name) != last_issued and self.stored == before:
            assert full
            self.in_memory[name] = before.access_token.reveal(), self.server.last_issued[name]
        elif name in self.in_memory and self.in_memory[name][0] != self.stored.access_token.reveal():
            del self.in_memory[name]

    def retry_after_401(self, session: Session, refused_header: str) -> str:
        new_header = asyncio.run(session.handle_challenge(refused_header, 401, REFUSED))
        assert new_header not in {None, refused_header}, "the session returned a refused token again"
        assert new_header is not None
        # Report the outcome as `auth.flow` does, but not in another thread.
        session._tokens._record_retry(Secret(new_header), self.server.accepts(new_header))
        if self.server.accepts(new_header):
            return new_header
        # The server also refuses the token that another process stored. Do what the next call would do.
        next_header = asyncio.run(session.handle_challenge(new_header, 401, REFUSED))
        assert next_header not in {None, new_header}
        assert next_header is not None
        session._tokens._record_retry(Secret(next_header), self.server.accepts(next_header))
        return next_header

    def has_usable_refresh_token(self, name: str) -> bool:
        """Return whether this process has a usable refresh token, in memory or on the disk."""
        if name in self.in_memory and self.in_memory[name][0] == self.stored.access_token.reveal():
            token = self.server.refresh_tokens[self.in_memory[name][1]]
            return not token.is_used and not token.family.is_revoked
        return self.server.can_refresh(self.stored)

    def family_of(self, tokens: Tokens) -> object:
        return self.server.access_tokens[tokens.access_token.reveal()].family

    def is_backing_off(self, name: str) -> bool:
        return self.clock() < self.server.failed_at.get(name, -1.0) + RETRY_SECONDS

    @rule()
    def revoke_access_tokens(self) -> None:
        for access in self.server.access_tokens.values():
            access.is_revoked = True

    @precondition(lambda self: self.server.can_refresh(self.stored))
    @rule()
    def revoke_session(self) -> None:
        for token in self.server.refresh_tokens.values():
            token.family.is_revoked = True

    @precondition(lambda self: self.server.can_refresh(self.stored))
    @rule()
    def refresh_elsewhere(self) -> None:
        refresh_token = self.stored.refresh_token
        assert refresh_token is not None
        self.server.refresh_tokens[refresh_token.reveal()].access_token.is_revoked = True
        new_tokens = self.server.rotate(refresh_token.reveal())
        assert new_tokens is not None
        self.store.save_tokens(KEY, new_tokens, None)

    @rule()
    def make_backup(self) -> None:
        self.backup = self.stored, (self.store.root / "notes.json").read_bytes()

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore_backup(self) -> None:
        assert self.backup is not None
        tokens, document = self.backup
        (self.store.root / "notes.json").write_bytes(document)
        assert tokens.refresh_token is not None
        self.restore_counts[tokens.refresh_token.reveal()] += 1
        # A restored access token counts as due for a refresh.
        self.server.refresh_tokens[tokens.refresh_token.reveal()].access_token.is_revoked = True

    @invariant()
    def no_token_is_refreshed_before_it_is_due(self) -> None:
        assert self.server.early_refreshes == []

    @invariant()
    def no_refresh_token_is_sent_again_after_it_was_exchanged(self) -> None:
        for sent, times in self.server.response_counts.items():
            # If a refresh token is refused before the access token expires, it is tried once more at the
            # expiry.
            extra_attempts = sent in self.server.refused_first
            assert times <= 1 + self.restore_counts[sent[1]] + extra_attempts


@covers("one-refresh", "asked-once", "adopted", "disk-refuses")
@pytest.mark.properties
def test_a_session_lasts_as_long_as_the_server_allows() -> None:
    run_state_machine_as_test(
        SessionStateMachine,
        settings=settings(
            max_examples=settings().max_examples // 2,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

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
from hermes_mcp_auth_remote.values import Server
from tests.demo.player import MovedClock
from tests.oauth.parties import URL
from tests.requirements import covers
from tests.service.given import KEY
from tests.service.model import Model, full_disk

pytestmark = pytest.mark.slow

REFUSED = ['Bearer error="invalid_token"']
SECONDS = st.sampled_from([0.0, 1.0, 5.0, 15.0, 60.0, 3300.0, 3541.0, 3600.0, 3600.0])
PROCESSES = st.sampled_from(["first", "second"])


class AtOnce(SingleFlight[CachedToken]):
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


class LifeCycle(RuleBasedStateMachine):
    """Two processes with one home, one strict server, and another program that writes the store."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.clock = MovedClock()
        self.server = Model(self.clock)
        self.store = FileStore(Path(self.home.name))
        self.sessions = {name: self._session(name) for name in ("first", "second")}
        self.backup: tuple[Tokens, bytes] | None = None
        self.restored: Counter[str] = Counter()
        # By process, tokens that it could not store: the access token on the disk, the new refresh token.
        self.in_memory: dict[str, tuple[str, str]] = {}
        self.log_in()

    def teardown(self) -> None:
        self.home.cleanup()

    def _session(self, name: str) -> Session:
        service = AuthService(Path(self.home.name), run_exchange=self.server.runner(name), clock=self.clock)
        service._deps = replace(service._deps, refresh_flights=AtOnce(name))
        return service.session(Server("notes", URL))

    @property
    def stored(self) -> Tokens:
        tokens = self.store.read(KEY).tokens
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
        self.server.trouble_at.pop(name, None)
        for key in [key for key in self.server.answered if key[0] == name]:
            del self.server.answered[key]

    @rule(calls=st.lists(st.tuples(PROCESSES, SECONDS), min_size=1, max_size=4))
    def call(self, calls: list[tuple[str, float]]) -> None:
        for name, seconds in calls:
            self.called(name, seconds)

    @rule(name=PROCESSES, waits=st.lists(SECONDS, min_size=1, max_size=3))
    def call_on_a_full_disk(self, name: str, waits: list[float]) -> None:
        for seconds in waits:
            self.called(name, seconds, full=True)

    @rule(name=PROCESSES, seconds=SECONDS, lost=st.booleans())
    def call_through_trouble(self, name: str, seconds: float, *, lost: bool) -> None:
        self.server.down, self.server.lose_next = not lost, lost
        self.called(name, seconds)
        self.server.down = self.server.lose_next = False

    def called(self, name: str, seconds: float, *, full: bool = False) -> None:
        """Some seconds later, send a request, and once more after a 401, as `auth.flow` does."""
        self.clock.now += seconds
        session, before, given = self.sessions[name], self.stored, self.server.given.get(name)
        hindered = self.server.down or self.server.lose_next or self.troubled(name)
        must_be_answered = self.can(name) and not hindered
        try:
            with full_disk() if full else nullcontext():
                sent = asyncio.run(session.header())
                if not self.server.live(sent):
                    sent = self.after_a_401(session, sent)
        except AuthorizationRequired:
            event("a login is needed")
            assert not must_be_answered
            assert not self.can(name), "a usable session asked for a login"
        except NetworkError:
            event("the network failed")
            assert hindered
        else:
            event("used unsaved tokens" if name in self.in_memory else "used stored tokens")
            assert self.server.live(sent)
            if seconds >= STORE_CHECK_SECONDS and not (full or name in self.in_memory):
                assert sent in {before.authorization_header, self.stored.authorization_header}, (
                    "the process did not notice a change of the store"
                )
        assert self.session_of(self.stored) is self.session_of(before), "another login was overwritten"
        if self.server.given.get(name) != given and self.stored == before:
            assert full
            self.in_memory[name] = before.access_token.reveal(), self.server.given[name]
        elif name in self.in_memory and self.in_memory[name][0] != self.stored.access_token.reveal():
            del self.in_memory[name]

    def after_a_401(self, session: Session, sent: str) -> str:
        renewed = asyncio.run(session.handle_challenge(sent, 401, REFUSED))
        assert renewed not in {None, sent}, "the session returned a refused token again"
        assert renewed is not None
        if self.server.live(renewed):
            return renewed
        # The server also refuses the token that another process stored. This is what the next call does.
        other = asyncio.run(session.handle_challenge(renewed, 401, REFUSED))
        assert other not in {None, renewed}
        assert other is not None
        return other

    def can(self, name: str) -> bool:
        """Return whether this process has a usable refresh token, in memory or on the disk."""
        if name in self.in_memory and self.in_memory[name][0] == self.stored.access_token.reveal():
            token = self.server.refreshes[self.in_memory[name][1]]
            return not token.used and not token.session.revoked
        return self.server.can_refresh(self.stored)

    def session_of(self, tokens: Tokens) -> object:
        return self.server.access[tokens.access_token.reveal()].session

    def troubled(self, name: str) -> bool:
        return self.clock() < self.server.trouble_at.get(name, -1.0) + RETRY_SECONDS

    @rule()
    def the_access_token_is_revoked(self) -> None:
        for access in self.server.access.values():
            access.revoked = True

    @precondition(lambda self: self.server.can_refresh(self.stored))
    @rule()
    def the_session_is_revoked(self) -> None:
        for token in self.server.refreshes.values():
            token.session.revoked = True

    @precondition(lambda self: self.server.can_refresh(self.stored))
    @rule()
    def another_writer_rotates(self) -> None:
        refresh_token = self.stored.refresh_token
        assert refresh_token is not None
        self.server.refreshes[refresh_token.reveal()].access.revoked = True
        fresh = self.server.rotated(refresh_token.reveal())
        assert fresh is not None
        self.store.save_tokens(KEY, fresh, None)

    @rule()
    def a_backup_is_made(self) -> None:
        self.backup = self.stored, (self.store.root / "notes.json").read_bytes()

    @precondition(lambda self: self.backup is not None)
    @rule()
    def the_backup_is_restored(self) -> None:
        assert self.backup is not None
        tokens, document = self.backup
        (self.store.root / "notes.json").write_bytes(document)
        assert tokens.refresh_token is not None
        self.restored[tokens.refresh_token.reveal()] += 1
        # A restored access token counts as due for a refresh.
        self.server.refreshes[tokens.refresh_token.reveal()].access.revoked = True

    @invariant()
    def no_token_is_renewed_before_it_is_due(self) -> None:
        assert self.server.untimely == []

    @invariant()
    def no_refresh_token_is_sent_again_once_it_brought_tokens(self) -> None:
        for sent, times in self.server.answered.items():
            # A refresh token that is refused before the expiry of the access token is tried once more then.
            again = sent in self.server.refused_at_once
            assert times <= 1 + self.restored[sent[1]] + again


@covers("one-refresh", "asked-once", "adopted", "disk-refuses")
@pytest.mark.properties
def test_a_session_lives_as_long_as_the_server_lets_it() -> None:
    run_state_machine_as_test(
        LifeCycle,
        settings=settings(
            max_examples=settings().max_examples // 2,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

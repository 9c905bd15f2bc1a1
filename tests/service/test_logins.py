"""Logins from start to end, and every way in which a login fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    LoginAlreadyUsed,
    LoginCancelled,
    LoginError,
    LoginExpired,
    LoginNotFound,
    MalformedResponse,
    McpAuthError,
    NetworkError,
    PasteRefused,
    ServerError,
    StoreUnwritable,
    TokenError,
)
from hermes_mcp_auth_remote.login import MAX_PASTE_ATTEMPTS, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.complete_login import CLAIM_SECONDS
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Server
from tests.browserless import approve, deny
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.actor import start
from tests.service.given import CHAT, KEY, TERMINAL, eventually, kept, log_in

pytestmark = pytest.mark.slow

GARBAGE = ["", "hello", "https://example.com/?code=a-code-of-somebody&state=x", "\x00\xff", "a" * 100_000]


def changed(url: str, **members: str | None) -> str:
    """Return the URL with changed query parameters."""
    merged = {**dict(parse_qsl(urlsplit(url).query)), **members}
    return f"{url.partition('?')[0]}?{urlencode({k: v for k, v in merged.items() if v is not None})}"


def code_of(url: str) -> str:
    return dict(parse_qsl(urlsplit(url).query))["code"]


async def begun(service: AuthService, server: Server, origin: Origin = TERMINAL) -> tuple[Login, str]:
    """Start a login, and return it with the address that the browser ends on."""
    login = await service.start_login(server, origin)
    return login, await asyncio.to_thread(approve, login.authorization_url)


def test_a_login_ends_with_a_connection_that_says_what_is_connected(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    connection = asyncio.run(log_in(service, server))
    assert connection.account == "ada@example.com"
    assert connection.issuer == demo.issuer
    assert connection.scope == frozenset({"mcp:tools", "offline_access"})
    assert connection.missing_scope == frozenset()
    assert connection.expires_at == clock() + 3600
    assert connection.can_refresh
    assert service.connection(server) == connection
    assert service.keys() == [KEY]


@covers("stored-first")
def test_a_login_is_stored_before_anybody_sees_it_and_nothing_else_is(
    service: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    login = asyncio.run(service.start_login(server, CHAT))
    assert AuthService(tmp_path, clock=clock).login(login.id) == login
    assert (login.status, login.expires_at) == ("waiting", clock() + 600)
    assert kept(tmp_path) == {}


@covers("stored-first")
def test_another_service_of_the_same_home_finishes_a_login(
    service: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    login, answer = asyncio.run(begun(service, server, CHAT))
    after_a_restart = AuthService(tmp_path, clock=clock)
    connection = asyncio.run(after_a_restart.complete_login(login.id, answer, CHAT))
    assert connection.key == KEY
    assert service.login(login.id).status == "done"
    assert asyncio.run(service.session(server).header()).startswith("Bearer at_")


@covers("stored-first")
def test_another_process_finishes_a_login_and_whoever_waits_hears_of_it(
    service: AuthService, server: Server, tmp_path: Path, demo: Demo, clock: MovedClock
) -> None:
    async def main() -> Login:
        login, answer = await begun(service, server)
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        actor = start("finish", tmp_path, clock(), login.id)
        said, _ = await asyncio.to_thread(actor.communicate, answer)
        assert said.split() == ["ready", "done"]
        return await waiting

    assert asyncio.run(main()).status == "done"
    assert demo.authorization_server.count_requests("token") == 1


@covers("single-use")
def test_an_answer_counts_once(service: AuthService, server: Server, demo: Demo, tmp_path: Path) -> None:
    login, answer = asyncio.run(begun(service, server))
    asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    before = kept(tmp_path)
    with pytest.raises(LoginAlreadyUsed):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 1
    assert kept(tmp_path) == before


@covers("single-use")
def test_of_a_hundred_pastes_at_once_one_counts(service: AuthService, server: Server, demo: Demo) -> None:
    async def main() -> list[Any]:
        login, answer = await begun(service, server)
        pastes = (service.complete_login(login.id, answer, TERMINAL) for _ in range(100))
        return await asyncio.gather(*pastes, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert sum(isinstance(outcome, LoginAlreadyUsed) for outcome in outcomes) == 99
    assert demo.authorization_server.count_requests("token") == 1


@covers("paste-foreign")
@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_a_wrong_paste_leaves_the_login_waiting_for_the_right_one(
    service: AuthService, server: Server, demo: Demo, text: str
) -> None:
    login, answer = asyncio.run(begun(service, server))
    with pytest.raises(PasteRefused):
        asyncio.run(service.complete_login(login.id, text, TERMINAL))
    assert service.login(login.id).status == "waiting"
    assert demo.authorization_server.count_requests("token") == 0
    asyncio.run(service.complete_login(login.id, answer, TERMINAL))


@covers("paste-limit")
def test_a_chat_has_five_pastes_and_the_fifth_says_that_it_is_over(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login, answer = asyncio.run(begun(service, server, CHAT))
    for _ in range(MAX_PASTE_ATTEMPTS - 1):
        with pytest.raises(PasteRefused):
            asyncio.run(service.complete_login(login.id, "hello", CHAT))
    with pytest.raises(LoginError, match="Too many wrong answers") as caught:
        asyncio.run(service.complete_login(login.id, "hello", CHAT))
    assert not isinstance(caught.value, PasteRefused)
    with pytest.raises(LoginError, match="Too many wrong answers"):
        asyncio.run(service.complete_login(login.id, answer, CHAT))
    assert demo.authorization_server.count_requests("token") == 0


@covers("two-logins")
def test_quirk_43_two_logins_of_one_server_each_take_their_own_answer_only(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> None:
        (one, first), (other, second) = await begun(service, server), await begun(service, server)
        assert one.request.state != other.request.state
        assert one.request.code_verifier != other.request.code_verifier
        with pytest.raises(PasteRefused):
            await service.complete_login(one.id, second, TERMINAL)
        with pytest.raises(PasteRefused):
            await service.complete_login(other.id, first, TERMINAL)
        await asyncio.gather(
            service.complete_login(one.id, first, TERMINAL),
            service.complete_login(other.id, second, TERMINAL),
        )

    asyncio.run(main())
    assert demo.authorization_server.count_requests("token") == 2


@covers("same-origin")
@pytest.mark.parametrize(
    "here",
    [
        replace(CHAT, chat_id="8"),
        replace(CHAT, thread_id="2"),
        replace(CHAT, user_id="43"),
        replace(CHAT, platform="discord"),
    ],
    ids=["another chat", "another thread", "another user", "another platform"],
)
def test_an_answer_counts_only_where_the_login_was_begun(
    service: AuthService, server: Server, demo: Demo, here: Origin
) -> None:
    login, answer = asyncio.run(begun(service, server, CHAT))
    for _ in range(MAX_PASTE_ATTEMPTS + 1):
        with pytest.raises(PasteRefused, match="started somewhere else"):
            asyncio.run(service.complete_login(login.id, answer, here))
    # Another user cannot use up the owner's attempts.
    assert service.login(login.id).paste_attempts == 0
    assert demo.authorization_server.count_requests("token") == 0
    asyncio.run(service.complete_login(login.id, answer, CHAT))


@covers("bare-code")
def test_a_code_alone_counts_where_no_other_login_waits(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    login, answer = asyncio.run(begun(service, server))
    with pytest.raises(PasteRefused, match="does not know that code"):
        asyncio.run(service.complete_login(login.id, "code_of-another-login", TERMINAL))
    assert service.login(login.id) == replace(login, paste_attempts=1)
    asyncio.run(service.complete_login(login.id, code_of(answer), TERMINAL))


@covers("bare-code")
def test_codes_that_the_provider_does_not_know_come_to_an_end_in_a_chat(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    login = asyncio.run(service.start_login(server, CHAT))
    for number in range(MAX_PASTE_ATTEMPTS):
        with pytest.raises(LoginError):
            asyncio.run(service.complete_login(login.id, f"a-code-of-nobody-{number}", CHAT))
    assert service.login(login.id).status == "failed"
    assert demo.authorization_server.count_requests("token") == MAX_PASTE_ATTEMPTS


@covers("bare-code")
def test_a_code_alone_does_not_count_where_pkce_is_only_hoped_for(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False, pkce_advertised=False)
    hopeful = replace(server, options=replace(server.options, allow_missing_pkce=True))
    login, answer = asyncio.run(begun(service, hopeful))
    with pytest.raises(PasteRefused, match="which login"):
        asyncio.run(service.complete_login(login.id, code_of(answer), TERMINAL))
    asyncio.run(service.complete_login(login.id, answer, TERMINAL))


@covers("bare-code")
@pytest.mark.parametrize(
    ("owner", "origin"),
    [("telegram:42", TERMINAL), (None, CHAT)],
    ids=["the same sender for another owner", "another sender for the same owner"],
)
def test_a_code_alone_does_not_count_where_it_may_mean_another_login(
    service: AuthService, server: Server, demo: Demo, owner: str | None, origin: Origin
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    login, answer = asyncio.run(begun(service, server))
    other = asyncio.run(service.start_login(server, origin, owner=owner))
    with pytest.raises(PasteRefused, match="which login"):
        asyncio.run(service.complete_login(login.id, code_of(answer), TERMINAL))
    assert demo.authorization_server.count_requests("token") == 0
    asyncio.run(service.cancel(other.id))
    asyncio.run(service.complete_login(login.id, code_of(answer), TERMINAL))


def test_a_denial_ends_the_login(service: AuthService, server: Server, demo: Demo) -> None:
    login = asyncio.run(service.start_login(server, TERMINAL))
    with pytest.raises(AuthorizationDenied):
        asyncio.run(service.complete_login(login.id, deny(login.authorization_url), TERMINAL))
    over = service.login(login.id)
    assert (over.status, over.failure_code) == ("failed", "authorization_denied")
    assert demo.authorization_server.count_requests("token") == 0


@covers("iss-mismatch")
def test_a_denial_without_this_login_s_state_ends_nothing(service: AuthService, server: Server) -> None:
    login = asyncio.run(service.start_login(server, TERMINAL))
    denial = deny(login.authorization_url)
    for forged in (changed(denial, state=None), changed(denial, state="x"), changed(denial, iss="https://x")):
        with pytest.raises(PasteRefused):
            asyncio.run(service.complete_login(login.id, forged, TERMINAL))
    assert service.login(login.id).status == "waiting"


@covers("expiry")
def test_a_login_expires_by_the_clock_and_takes_nothing_more(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    login, answer = asyncio.run(begun(service, server))
    clock.now += 599
    assert service.login(login.id).status == "waiting"
    clock.now += 1
    with pytest.raises(LoginExpired):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert asyncio.run(service.wait_for_login(login.id)).failure_code == "login_expired"
    assert demo.authorization_server.count_requests("token") == 0


def test_a_login_that_expires_while_its_answer_is_read_is_not_claimed(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*_: object) -> bool:
        clock.now += 600
        return True

    login, answer = asyncio.run(begun(service, server))
    monkeypatch.setattr(type(service._logins), "_is_only_waiting_login", slowly)
    with pytest.raises(LoginExpired):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 0


def test_a_cancelled_login_takes_nothing_more(service: AuthService, server: Server, demo: Demo) -> None:
    login, answer = asyncio.run(begun(service, server))
    assert asyncio.run(service.cancel(login.id)).status == "cancelled"
    with pytest.raises(LoginCancelled):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 0


@pytest.mark.parametrize("login_id", ["", "../../etc/passwd", "a-login-that-there-is-not"])
def test_an_id_that_is_none_finds_nothing(service: AuthService, login_id: str) -> None:
    with pytest.raises(LoginNotFound):
        service.login(login_id)
    with pytest.raises(LoginNotFound):
        asyncio.run(service.complete_login(login_id, "anything", TERMINAL))


FAULTS: dict[str, tuple[dict[str, Any], type[McpAuthError]]] = {
    "502": ({"status": 502, "body": "<html>"}, MalformedResponse),
    "an error in a 200": ({"status": 200, "body": '{"error": "server_error"}'}, TokenError),
    "no token": ({"status": 200, "body": '{"access_token": ""}'}, MalformedResponse),
    "no response": ({"hang_up": True}, NetworkError),
    "a lost response": ({"hang_up": True, "after_processing": True}, NetworkError),
    "a redirect": ({"status": 307, "headers": {"Location": "https://example.com/"}}, NetworkError),
    "1 MiB": ({"status": 200, "body": b"{" + b" " * 1_100_000}, NetworkError),
}


@covers("code-once", "old-survive")
@pytest.mark.parametrize("name", FAULTS)
def test_a_code_is_sent_once_and_what_was_stored_survives_its_failure(
    session_kept: AuthService, server: Server, demo: Demo, tmp_path: Path, name: str
) -> None:
    fault, kind = FAULTS[name]
    before = kept(tmp_path)
    login, answer = asyncio.run(begun(session_kept, server))
    demo.authorization_server.fail_next("token", **fault)
    with pytest.raises(kind):
        asyncio.run(session_kept.complete_login(login.id, answer, TERMINAL))
    with pytest.raises(LoginError):
        asyncio.run(session_kept.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 1
    assert session_kept.login(login.id).status == "failed"
    assert kept(tmp_path) == before
    assert len(before) == 4
    asyncio.run(log_in(session_kept, server))


@covers("old-survive")
def test_a_login_that_cannot_be_begun_leaves_what_was_stored(
    session_kept: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    before = kept(tmp_path)
    for step in ("ping", "protected_resource_metadata", "authorization_server_metadata"):
        demo.authorization_server.fail_next(step, status=200, body="<html>", times=None)
        demo.authorization_server.fail_next(step, hang_up=True, times=None)
    with pytest.raises((ServerError, NetworkError)):
        asyncio.run(session_kept.start_login(server, TERMINAL))
    assert kept(tmp_path) == before


@covers("old-survive")
def test_a_full_disk_fails_the_login_and_nothing_that_was_stored(
    session_kept: AuthService, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreUnwritable("The disk is full.")

    before = kept(tmp_path)
    login, answer = asyncio.run(begun(session_kept, server))
    monkeypatch.setattr(FileStore, "save_login", full)
    with pytest.raises(StoreUnwritable):
        asyncio.run(session_kept.complete_login(login.id, answer, TERMINAL))
    assert session_kept.login(login.id).failure_code == "store_unwritable"
    assert kept(tmp_path) == before
    assert asyncio.run(session_kept.session(server).header()).startswith("Bearer at_")


@covers("expiry")
def test_a_login_whose_process_was_killed_while_exchanging_fails_two_minutes_later(
    service: AuthService, server: Server, tmp_path: Path, demo: Demo, clock: MovedClock
) -> None:
    login, answer = asyncio.run(begun(service, server))
    gate = demo.authorization_server.hold("token")
    actor = start("finish", tmp_path, clock(), login.id)
    assert actor.stdin is not None
    actor.stdin.write(answer)
    actor.stdin.close()
    assert gate.arrived.wait(20)
    actor.kill()
    actor.wait()
    assert actor.stdout is not None
    actor.stdout.close()
    assert service.login(login.id).status == "exchanging"
    clock.now += CLAIM_SECONDS - 1
    assert service.login(login.id).status == "exchanging"
    with pytest.raises(LoginAlreadyUsed):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    clock.now += 1
    assert service.login(login.id).status == "failed"
    assert demo.authorization_server.count_requests("token") == 1


def test_a_claim_gives_the_exchange_its_own_time(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    async def main() -> Login:
        login, answer = await begun(service, server)
        clock.now += 599
        gate = demo.authorization_server.hold("token")
        finishing = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        await asyncio.to_thread(gate.arrived.wait, 20)
        clock.now += CLAIM_SECONDS - 1
        assert service.login(login.id).status == "exchanging"
        gate.open()
        await asyncio.gather(finishing, return_exceptions=True)
        return service.login(login.id)

    demo.authorization_server.change_behaviour(code_seconds=10_000)
    assert asyncio.run(main()).status == "done"


@covers("login-table")
def test_what_others_bring_while_a_login_is_exchanged_does_not_end_it(
    service: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        login, answer = await begun(service, server, CHAT)
        denial = changed(answer, code=None, error="access_denied")
        gate = demo.authorization_server.hold("token")
        claimed = asyncio.create_task(service.complete_login(login.id, answer, CHAT))
        await asyncio.to_thread(gate.arrived.wait, 20)
        # A process that read the login before the claim still sees it as waiting.
        monkeypatch.setattr(type(service._logins), "get", lambda _self, _id: login)
        for _ in range(MAX_PASTE_ATTEMPTS + 1):
            with pytest.raises(LoginAlreadyUsed):
                await service.complete_login(login.id, "hello", CHAT)
        with pytest.raises(LoginAlreadyUsed):
            await service.complete_login(login.id, denial, CHAT)
        monkeypatch.undo()
        gate.open()
        await claimed
        assert service.login(login.id).status == "done"

    asyncio.run(main())


@covers("old-survive")
def test_ctrl_c_while_the_code_is_out_leaves_the_old_session_until_the_code_is_refused(
    session_kept: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    before = kept(tmp_path)

    async def main() -> Login:
        login, answer = await begun(session_kept, server)
        gate = demo.authorization_server.hold("token")
        finishing = asyncio.create_task(session_kept.complete_login(login.id, answer, TERMINAL))
        await asyncio.to_thread(gate.arrived.wait, 20)
        finishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finishing
        # The code was sent, and the response is still pending.
        assert session_kept.login(login.id).status == "exchanging"
        demo.authorization_server.ledger.codes.clear()
        gate.open()
        await asyncio.to_thread(eventually, lambda: session_kept.login(login.id).is_over)
        return session_kept.login(login.id)

    over = asyncio.run(main())
    assert (over.status, over.failure_code) == ("failed", "token_refused")
    assert kept(tmp_path) == before


@covers("old-survive")
def test_ctrl_c_while_the_tokens_are_stored_loses_neither_them_nor_the_lock(
    service: AuthService, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go = threading.Event(), threading.Event()
    replace_really: Callable[[FileStore, CredentialKey, Credentials, str | None], None] = FileStore.save_login

    def slow(store: FileStore, key: CredentialKey, credentials: Credentials, login_id: str | None) -> None:
        storing.set()
        assert go.wait(20)
        assert not store.lock(key).try_acquire()
        replace_really(store, key, credentials, login_id)

    monkeypatch.setattr(FileStore, "save_login", slow)

    async def main() -> Login:
        login, answer = await begun(service, server)
        finishing = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        await asyncio.to_thread(storing.wait, 20)
        finishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finishing
        assert service.login(login.id).status == "exchanging"
        go.set()
        return await service.wait_for_login(login.id)

    assert asyncio.run(main()).status == "done"
    assert service.connection(server) is not None


@covers("stale-client")
def test_a_provider_that_forgot_the_client_is_met_anew_at_the_next_login(
    session_kept: AuthService, server: Server, demo: Demo
) -> None:
    login, answer = asyncio.run(begun(session_kept, server))
    demo.authorization_server.ledger.forget_clients()
    with pytest.raises(TokenError) as caught:
        asyncio.run(session_kept.complete_login(login.id, answer, TERMINAL))
    assert caught.value.error == "invalid_client"
    assert session_kept.login(login.id).status == "failed"
    asyncio.run(log_in(session_kept, server))
    assert demo.authorization_server.count_requests("registration") == 1


@covers("logout")
def test_logout_revokes_and_deletes_also_where_the_server_is_gone(
    session_kept: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    demo.authorization_server.fail_next("revocation", hang_up=True, times=None)
    assert asyncio.run(session_kept.logout(server)) is False
    assert kept(tmp_path) == {}
    assert session_kept.session(server).header_now() is None
    demo.authorization_server.clear_faults()
    asyncio.run(log_in(session_kept, server))
    assert asyncio.run(session_kept.logout(server)) is True
    assert all(
        token.family.revoked for token in list(demo.authorization_server.ledger.refresh_tokens.values())[-1:]
    )


def families_live(demo: Demo) -> list[bool]:
    """Return for each granted session whether it is not revoked, in the order of the grants."""
    families = {
        id(token.family): token.family for token in demo.authorization_server.ledger.refresh_tokens.values()
    }
    return [not family.revoked for family in families.values()]


@covers("logout", "single-use")
@pytest.mark.parametrize("by_another", [False, True])
def test_a_logout_ends_a_login_that_is_being_exchanged_and_its_tokens_are_revoked(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: MovedClock, *, by_another: bool
) -> None:
    leaver = AuthService(tmp_path, clock=clock) if by_another else service
    before = len(families_live(demo))

    async def main() -> Login:
        login, answer = await begun(service, server)
        gate = demo.authorization_server.hold("token", after_processing=True)
        finishing = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        await leaver.logout(server)
        gate.open()
        with pytest.raises(LoginError, match="ended by a logout"):
            await finishing
        return service.login(login.id)

    assert asyncio.run(main()).status == "failed"
    assert kept(tmp_path) == {}
    assert service.session(server).header_now() is None
    assert families_live(demo)[before:] == [False]


@covers("logout")
def test_a_logout_beside_a_login_whose_tokens_are_just_stored_deletes_them(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go = threading.Event(), threading.Event()
    replace_really: Callable[[FileStore, CredentialKey, Credentials, str | None], None] = FileStore.save_login

    def slow(store: FileStore, key: CredentialKey, credentials: Credentials, login_id: str | None) -> None:
        storing.set()
        assert go.wait(20)
        replace_really(store, key, credentials, login_id)

    monkeypatch.setattr(FileStore, "save_login", slow)

    async def main() -> None:
        login, answer = await begun(service, server)
        finishing = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(storing.wait, 20)
        leaving = asyncio.create_task(service.logout(server))
        while service.login(login.id).status == "exchanging":  # noqa: ASYNC110  another thread's work
            await asyncio.sleep(0.01)
        go.set()
        await finishing
        assert await leaving is True

    asyncio.run(main())
    assert kept(tmp_path) == {}
    assert families_live(demo)[-1] is False


@covers("dpop-choice", "old-survive")
def test_a_plain_token_is_refused_where_the_operator_demands_a_bound_one(
    session_kept: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    before = kept(tmp_path)
    demanding = replace(server, options=replace(server.options, dpop=True))

    async def main() -> Login:
        login, answer = await begun(session_kept, demanding)
        with pytest.raises(MalformedResponse, match=r"bound to no key, and `oauth\.dpop` demands one"):
            await session_kept.complete_login(login.id, answer, TERMINAL)
        return session_kept.login(login.id)

    over = asyncio.run(main())
    assert (over.status, over.failure_code) == ("failed", "unreadable_answer")
    assert kept(tmp_path) == before
    assert families_live(demo)[-2:] == [True, False]


@covers("logout")
def test_logout_deletes_also_where_the_way_out_is_misconfigured(
    session_kept: AuthService, server: Server, tmp_path: Path
) -> None:
    wrong = replace(server, options=replace(server.options, allow_addresses=("no network",)))
    assert asyncio.run(session_kept.logout(wrong)) is False
    assert kept(tmp_path) == {}


@covers("registered-uri")
def test_a_redirect_host_that_was_configured_since_counts_and_the_registered_port_else(
    session_kept: AuthService, server: Server
) -> None:
    registered = session_kept.redirect_uri(server)
    assert asyncio.run(session_kept.start_login(server, TERMINAL)).request.redirect_uri == registered
    other = replace(server, options=replace(server.options, redirect_host="localhost"))
    assert urlsplit(session_kept.redirect_uri(other)).hostname == "localhost"
    port = replace(server, options=replace(server.options, redirect_port=8765))
    assert session_kept.redirect_uri(port) == "http://127.0.0.1:8765/callback"

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
from hermes_mcp_auth_remote.store.protocol import Version
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Server
from tests.consent_form import approve, deny
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.child_process import start_process
from tests.service.helpers import CHAT, KEY, TERMINAL, log_in, read_credential_files, wait_until

pytestmark = pytest.mark.slow

GARBAGE = ["", "hello", "https://example.com/?code=a-code-of-somebody&state=x", "\x00\xff", "a" * 100_000]


def change_query(url: str, **members: str | None) -> str:
    """Return the URL with changed query parameters."""
    merged = {**dict(parse_qsl(urlsplit(url).query)), **members}
    return f"{url.partition('?')[0]}?{urlencode({k: v for k, v in merged.items() if v is not None})}"


def code_of(url: str) -> str:
    return dict(parse_qsl(urlsplit(url).query))["code"]


async def start_and_approve(
    service: AuthService, server: Server, origin: Origin = TERMINAL
) -> tuple[Login, str]:
    """Start a login, and return it with the address that the browser ends on."""
    login = await service.start_login(server, origin)
    return login, await asyncio.to_thread(approve, login.authorization_url)


@covers("paste-uncertain")
def test_a_redirect_that_a_browser_sent_is_taken_exactly_and_a_paste_is_asked_about(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def check() -> None:
        login, address = await start_and_approve(service, server)
        code = f"{code_of(address)}|x."
        with_code_last = f"{change_query(address, code=None)}&code={code}"
        with pytest.raises(PasteRefused):
            await service.complete_login(login.id, with_code_last, TERMINAL)
        assert demo.authorization_server.count_requests("token") == 0
        with pytest.raises(TokenError):
            await service.complete_login(login.id, with_code_last, TERMINAL, is_pasted=False)
        [request] = [it for it in demo.authorization_server.requests if it.step == "token"]
        assert request.form["code"] == code

    asyncio.run(check())


def test_a_completed_login_returns_the_connection(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    connection = asyncio.run(log_in(service, server))
    assert connection.account == "ada@example.com"
    assert connection.issuer == demo.issuer
    assert connection.scope == frozenset({"mcp:tools", "offline_access"})
    assert connection.missing_scope == frozenset()
    assert connection.expires_at == clock() + 3600
    assert connection.can_refresh
    assert service.blocking.connection(server) == connection
    assert service.blocking.keys() == [KEY]


@covers("stored-first")
def test_a_login_is_stored_before_the_caller_gets_it_and_no_credentials_are(
    service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    login = asyncio.run(service.start_login(server, CHAT))
    assert AuthService(tmp_path, clock=clock).blocking.login(login.id) == login
    assert (login.status, login.expires_at) == ("waiting", clock() + 600)
    assert read_credential_files(tmp_path) == {}


@covers("stored-first")
def test_another_service_with_the_same_home_completes_a_login(
    service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    login, answer = asyncio.run(start_and_approve(service, server, CHAT))
    after_a_restart = AuthService(tmp_path, clock=clock)
    connection = asyncio.run(after_a_restart.complete_login(login.id, answer, CHAT))
    assert connection.key == KEY
    assert service.blocking.login(login.id).status == "done"
    assert asyncio.run(service.session(server).header()).startswith("Bearer at_")


@covers("stored-first")
def test_another_process_completes_a_login_and_a_waiting_caller_learns_of_it(
    service: AuthService, server: Server, tmp_path: Path, demo: Demo, clock: ManualClock
) -> None:
    async def main() -> Login:
        login, answer = await start_and_approve(service, server)
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        actor = start_process("finish", tmp_path, clock(), login.id)
        output, _ = await asyncio.to_thread(actor.communicate, answer)
        assert output.split() == ["ready", "done"]
        return await waiting

    assert asyncio.run(main()).status == "done"
    assert demo.authorization_server.count_requests("token") == 1


@covers("single-use")
def test_a_pasted_answer_is_accepted_once(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    login, answer = asyncio.run(start_and_approve(service, server))
    asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    before = read_credential_files(tmp_path)
    with pytest.raises(LoginAlreadyUsed):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 1
    assert read_credential_files(tmp_path) == before


@covers("single-use")
def test_of_a_hundred_simultaneous_pastes_one_is_accepted(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> list[Any]:
        login, answer = await start_and_approve(service, server)
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
    login, answer = asyncio.run(start_and_approve(service, server))
    with pytest.raises(PasteRefused):
        asyncio.run(service.complete_login(login.id, text, TERMINAL))
    assert service.blocking.login(login.id).status == "waiting"
    assert demo.authorization_server.count_requests("token") == 0
    asyncio.run(service.complete_login(login.id, answer, TERMINAL))


@covers("paste-limit")
def test_a_chat_has_five_paste_attempts_and_the_fifth_ends_the_login(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login, answer = asyncio.run(start_and_approve(service, server, CHAT))
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
def test_quirk_43_two_logins_of_one_server_each_accept_only_their_own_answer(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> None:
        (one, first), (other, second) = (
            await start_and_approve(service, server),
            await start_and_approve(service, server),
        )
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
    "origin",
    [
        replace(CHAT, chat_id="8"),
        replace(CHAT, thread_id="2"),
        replace(CHAT, user_id="43"),
        replace(CHAT, platform="discord"),
    ],
    ids=["another chat", "another thread", "another user", "another platform"],
)
def test_an_answer_is_accepted_only_from_the_origin_of_the_login(
    service: AuthService, server: Server, demo: Demo, origin: Origin
) -> None:
    login, answer = asyncio.run(start_and_approve(service, server, CHAT))
    for _ in range(MAX_PASTE_ATTEMPTS + 1):
        with pytest.raises(PasteRefused, match="started somewhere else"):
            asyncio.run(service.complete_login(login.id, answer, origin))
    # Another user cannot use up the owner's attempts.
    assert service.blocking.login(login.id).paste_attempts == 0
    assert demo.authorization_server.count_requests("token") == 0
    asyncio.run(service.complete_login(login.id, answer, CHAT))


@covers("bare-code")
def test_a_bare_code_is_accepted_if_no_other_login_waits(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    login, answer = asyncio.run(start_and_approve(service, server))
    with pytest.raises(PasteRefused, match="does not know that code"):
        asyncio.run(service.complete_login(login.id, "code_of-another-login", TERMINAL))
    assert service.blocking.login(login.id) == replace(login, paste_attempts=1)
    asyncio.run(service.complete_login(login.id, code_of(answer), TERMINAL))


@covers("bare-code")
def test_codes_that_the_server_does_not_know_end_a_chat_login_after_five_attempts(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    login = asyncio.run(service.start_login(server, CHAT))
    for number in range(MAX_PASTE_ATTEMPTS):
        with pytest.raises(LoginError):
            asyncio.run(service.complete_login(login.id, f"a-code-of-nobody-{number}", CHAT))
    assert service.blocking.login(login.id).status == "failed"
    assert demo.authorization_server.count_requests("token") == MAX_PASTE_ATTEMPTS


@covers("bare-code")
def test_a_bare_code_is_refused_if_pkce_is_not_confirmed(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False, pkce_advertised=False)
    lenient_server = replace(server, options=replace(server.options, allow_missing_pkce=True))
    login, answer = asyncio.run(start_and_approve(service, lenient_server))
    with pytest.raises(PasteRefused, match="which login"):
        asyncio.run(service.complete_login(login.id, code_of(answer), TERMINAL))
    asyncio.run(service.complete_login(login.id, answer, TERMINAL))


@covers("bare-code")
@pytest.mark.parametrize(
    ("owner", "origin"),
    [("telegram:42", TERMINAL), (None, CHAT)],
    ids=["the same sender for another owner", "another sender for the same owner"],
)
def test_a_bare_code_is_refused_if_it_may_belong_to_another_login(
    service: AuthService, server: Server, demo: Demo, owner: str | None, origin: Origin
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    login, answer = asyncio.run(start_and_approve(service, server))
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
    ended_login = service.blocking.login(login.id)
    assert (ended_login.status, ended_login.failure_code) == ("failed", "authorization_denied")
    assert demo.authorization_server.count_requests("token") == 0


@covers("iss-mismatch")
def test_a_denial_without_the_state_of_this_login_is_refused(service: AuthService, server: Server) -> None:
    login = asyncio.run(service.start_login(server, TERMINAL))
    denial = deny(login.authorization_url)
    for forged in (
        change_query(denial, state=None),
        change_query(denial, state="x"),
        change_query(denial, iss="https://x"),
    ):
        with pytest.raises(PasteRefused):
            asyncio.run(service.complete_login(login.id, forged, TERMINAL))
    assert service.blocking.login(login.id).status == "waiting"


@covers("expiry")
def test_a_login_expires_by_the_clock_and_accepts_no_answer_then(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    login, answer = asyncio.run(start_and_approve(service, server))
    clock.now += 599
    assert service.blocking.login(login.id).status == "waiting"
    clock.now += 1
    with pytest.raises(LoginExpired):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert asyncio.run(service.wait_for_login(login.id)).failure_code == "login_expired"
    assert demo.authorization_server.count_requests("token") == 0


def test_a_login_that_expires_while_its_answer_is_read_is_not_claimed(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pass_the_expiry(*_: object) -> bool:
        clock.now += 600
        return True

    login, answer = asyncio.run(start_and_approve(service, server))
    monkeypatch.setattr(type(service._logins), "_is_only_waiting_login", pass_the_expiry)
    with pytest.raises(LoginExpired):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 0


def test_a_cancelled_login_accepts_no_answer(service: AuthService, server: Server, demo: Demo) -> None:
    login, answer = asyncio.run(start_and_approve(service, server))
    assert asyncio.run(service.cancel(login.id)).status == "cancelled"
    with pytest.raises(LoginCancelled):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 0


@pytest.mark.parametrize("login_id", ["", "../../etc/passwd", "a-login-that-there-is-not"])
def test_an_unknown_login_id_is_not_found(service: AuthService, login_id: str) -> None:
    with pytest.raises(LoginNotFound):
        service.blocking.login(login_id)
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
def test_a_code_is_sent_once_and_stored_credentials_survive_its_failure(
    logged_in_service: AuthService, server: Server, demo: Demo, tmp_path: Path, name: str
) -> None:
    fault, kind = FAULTS[name]
    before = read_credential_files(tmp_path)
    login, answer = asyncio.run(start_and_approve(logged_in_service, server))
    demo.authorization_server.fail_next("token", **fault)
    with pytest.raises(kind):
        asyncio.run(logged_in_service.complete_login(login.id, answer, TERMINAL))
    with pytest.raises(LoginError):
        asyncio.run(logged_in_service.complete_login(login.id, answer, TERMINAL))
    assert demo.authorization_server.count_requests("token") == 1
    assert logged_in_service.blocking.login(login.id).status == "failed"
    assert read_credential_files(tmp_path) == before
    assert len(before) == 4
    asyncio.run(log_in(logged_in_service, server))


@covers("old-survive")
def test_a_login_that_cannot_start_leaves_stored_credentials_unchanged(
    logged_in_service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    before = read_credential_files(tmp_path)
    for step in ("ping", "protected_resource_metadata", "authorization_server_metadata"):
        demo.authorization_server.fail_next(step, status=200, body="<html>", times=None)
        demo.authorization_server.fail_next(step, hang_up=True, times=None)
    with pytest.raises((ServerError, NetworkError)):
        asyncio.run(logged_in_service.start_login(server, TERMINAL))
    assert read_credential_files(tmp_path) == before


@covers("old-survive")
def test_a_full_disk_fails_the_login_and_leaves_stored_credentials_unchanged(
    logged_in_service: AuthService, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_to_save(*_: object) -> None:
        raise StoreUnwritable("The disk is full.")

    before = read_credential_files(tmp_path)
    login, answer = asyncio.run(start_and_approve(logged_in_service, server))
    monkeypatch.setattr(FileStore, "save_login", refuse_to_save)
    with pytest.raises(StoreUnwritable):
        asyncio.run(logged_in_service.complete_login(login.id, answer, TERMINAL))
    assert logged_in_service.blocking.login(login.id).failure_code == "store_unwritable"
    assert read_credential_files(tmp_path) == before
    assert asyncio.run(logged_in_service.session(server).header()).startswith("Bearer at_")


@covers("expiry")
def test_a_login_whose_process_is_killed_while_exchanging_fails_after_two_minutes(
    service: AuthService, server: Server, tmp_path: Path, demo: Demo, clock: ManualClock
) -> None:
    login, answer = asyncio.run(start_and_approve(service, server))
    gate = demo.authorization_server.hold("token")
    actor = start_process("finish", tmp_path, clock(), login.id)
    assert actor.stdin is not None
    actor.stdin.write(answer)
    actor.stdin.close()
    assert gate.arrived.wait(20)
    actor.kill()
    actor.wait()
    assert actor.stdout is not None
    actor.stdout.close()
    assert service.blocking.login(login.id).status == "exchanging"
    clock.now += CLAIM_SECONDS - 1
    assert service.blocking.login(login.id).status == "exchanging"
    with pytest.raises(LoginAlreadyUsed):
        asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    clock.now += 1
    assert service.blocking.login(login.id).status == "failed"
    assert demo.authorization_server.count_requests("token") == 1


def test_a_claim_gives_the_exchange_its_own_time_limit(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    async def main() -> Login:
        login, answer = await start_and_approve(service, server)
        clock.now += 599
        gate = demo.authorization_server.hold("token")
        completion = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        await asyncio.to_thread(gate.arrived.wait, 20)
        clock.now += CLAIM_SECONDS - 1
        assert service.blocking.login(login.id).status == "exchanging"
        gate.open()
        await asyncio.gather(completion, return_exceptions=True)
        return service.blocking.login(login.id)

    demo.authorization_server.change_behaviour(code_seconds=10_000)
    assert asyncio.run(main()).status == "done"


@covers("login-table")
def test_other_pastes_during_an_exchange_do_not_end_the_login(
    service: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        login, answer = await start_and_approve(service, server, CHAT)
        denial = change_query(answer, code=None, error="access_denied")
        gate = demo.authorization_server.hold("token")
        completion = asyncio.create_task(service.complete_login(login.id, answer, CHAT))
        await asyncio.to_thread(gate.arrived.wait, 20)
        # A process that read the login before the claim still sees it as waiting.
        monkeypatch.setattr(type(service._completion), "get", lambda _self, _id: login)
        for _ in range(MAX_PASTE_ATTEMPTS + 1):
            with pytest.raises(LoginAlreadyUsed):
                await service.complete_login(login.id, "hello", CHAT)
        with pytest.raises(LoginAlreadyUsed):
            await service.complete_login(login.id, denial, CHAT)
        monkeypatch.undo()
        gate.open()
        await completion
        assert service.blocking.login(login.id).status == "done"

    asyncio.run(main())


@covers("old-survive")
def test_ctrl_c_after_the_code_was_sent_keeps_the_old_session_if_the_code_is_refused(
    logged_in_service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    before = read_credential_files(tmp_path)

    async def main() -> Login:
        login, answer = await start_and_approve(logged_in_service, server)
        gate = demo.authorization_server.hold("token")
        completion = asyncio.create_task(logged_in_service.complete_login(login.id, answer, TERMINAL))
        await asyncio.to_thread(gate.arrived.wait, 20)
        completion.cancel()
        with pytest.raises(asyncio.CancelledError):
            await completion
        # The code was sent, and the response is still pending.
        assert logged_in_service.blocking.login(login.id).status == "exchanging"
        demo.authorization_server.ledger.codes.clear()
        gate.open()
        await asyncio.to_thread(wait_until, lambda: logged_in_service.blocking.login(login.id).is_over)
        return logged_in_service.blocking.login(login.id)

    ended_login = asyncio.run(main())
    assert (ended_login.status, ended_login.failure_code) == ("failed", "token_refused")
    assert read_credential_files(tmp_path) == before


@covers("old-survive")
def test_ctrl_c_while_tokens_are_saved_loses_neither_them_nor_the_lock(
    service: AuthService, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_started_saving, may_continue = threading.Event(), threading.Event()
    save_login: Callable[[FileStore, CredentialKey, Credentials, str | None], Version | None] = (
        FileStore.save_login
    )

    def save_slowly(
        store: FileStore, key: CredentialKey, credentials: Credentials, login_id: str | None
    ) -> Version | None:
        has_started_saving.set()
        assert may_continue.wait(20)
        assert not store.lock(key).try_acquire()
        return save_login(store, key, credentials, login_id)

    monkeypatch.setattr(FileStore, "save_login", save_slowly)

    async def main() -> Login:
        login, answer = await start_and_approve(service, server)
        completion = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        await asyncio.to_thread(has_started_saving.wait, 20)
        completion.cancel()
        with pytest.raises(asyncio.CancelledError):
            await completion
        assert service.blocking.login(login.id).status == "exchanging"
        may_continue.set()
        return await service.wait_for_login(login.id)

    assert asyncio.run(main()).status == "done"
    assert service.blocking.connection(server) is not None


@covers("stale-client")
def test_a_client_that_the_server_forgot_is_registered_again_at_the_next_login(
    logged_in_service: AuthService, server: Server, demo: Demo
) -> None:
    login, answer = asyncio.run(start_and_approve(logged_in_service, server))
    demo.authorization_server.ledger.forget_clients()
    with pytest.raises(TokenError) as caught:
        asyncio.run(logged_in_service.complete_login(login.id, answer, TERMINAL))
    assert caught.value.error == "invalid_client"
    assert logged_in_service.blocking.login(login.id).status == "failed"
    asyncio.run(log_in(logged_in_service, server))
    assert demo.authorization_server.count_requests("registration") == 1


@covers("logout")
def test_logout_revokes_and_deletes_and_deletes_even_if_the_server_is_down(
    logged_in_service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    demo.authorization_server.fail_next("revocation", hang_up=True, times=None)
    assert asyncio.run(logged_in_service.logout(server)) is False
    assert read_credential_files(tmp_path) == {}
    assert logged_in_service.session(server).header_now() is None
    demo.authorization_server.clear_faults()
    asyncio.run(log_in(logged_in_service, server))
    assert asyncio.run(logged_in_service.logout(server)) is True
    assert all(
        token.family.revoked for token in list(demo.authorization_server.ledger.refresh_tokens.values())[-1:]
    )


def active_families(demo: Demo) -> list[bool]:
    """For each granted session, return True if it is not revoked. The order is that of the grants."""
    families = {
        id(token.family): token.family for token in demo.authorization_server.ledger.refresh_tokens.values()
    }
    return [not family.revoked for family in families.values()]


@covers("logout", "single-use")
@pytest.mark.parametrize("by_another", [False, True])
def test_a_logout_ends_a_login_during_its_exchange_and_revokes_its_tokens(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: ManualClock, *, by_another: bool
) -> None:
    leaver = AuthService(tmp_path, clock=clock) if by_another else service
    before = len(active_families(demo))

    async def main() -> Login:
        login, answer = await start_and_approve(service, server)
        gate = demo.authorization_server.hold("token", after_processing=True)
        completion = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        await leaver.logout(server)
        gate.open()
        with pytest.raises(LoginError, match="ended by a logout"):
            await completion
        return service.blocking.login(login.id)

    assert asyncio.run(main()).status == "failed"
    assert read_credential_files(tmp_path) == {}
    assert service.session(server).header_now() is None
    assert active_families(demo)[before:] == [False]


@covers("logout")
def test_a_logout_during_the_save_of_a_login_deletes_its_tokens(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_started_saving, may_continue = threading.Event(), threading.Event()
    save_login: Callable[[FileStore, CredentialKey, Credentials, str | None], Version | None] = (
        FileStore.save_login
    )

    def save_slowly(
        store: FileStore, key: CredentialKey, credentials: Credentials, login_id: str | None
    ) -> Version | None:
        has_started_saving.set()
        assert may_continue.wait(20)
        return save_login(store, key, credentials, login_id)

    monkeypatch.setattr(FileStore, "save_login", save_slowly)

    async def main() -> None:
        login, answer = await start_and_approve(service, server)
        completion = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(has_started_saving.wait, 20)
        logout = asyncio.create_task(service.logout(server))
        while service.blocking.login(login.id).status == "exchanging":  # noqa: ASYNC110  another thread's work
            await asyncio.sleep(0.01)
        may_continue.set()
        await completion
        assert await logout is True

    asyncio.run(main())
    assert read_credential_files(tmp_path) == {}
    assert active_families(demo)[-1] is False


@covers("dpop-choice", "old-survive")
def test_a_bearer_token_is_refused_if_the_operator_requires_dpop(
    logged_in_service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    before = read_credential_files(tmp_path)
    dpop_server = replace(server, options=replace(server.options, dpop=True))

    async def main() -> Login:
        login, answer = await start_and_approve(logged_in_service, dpop_server)
        with pytest.raises(MalformedResponse, match=r"bound to no key, and `oauth\.dpop` demands one"):
            await logged_in_service.complete_login(login.id, answer, TERMINAL)
        return logged_in_service.blocking.login(login.id)

    ended_login = asyncio.run(main())
    assert (ended_login.status, ended_login.failure_code) == ("failed", "unreadable_answer")
    assert read_credential_files(tmp_path) == before
    assert active_families(demo)[-2:] == [True, False]


@covers("logout")
def test_logout_deletes_even_if_the_address_options_are_invalid(
    logged_in_service: AuthService, server: Server, tmp_path: Path
) -> None:
    wrong = replace(server, options=replace(server.options, allow_addresses=("no network",)))
    assert asyncio.run(logged_in_service.logout(wrong)) is False
    assert read_credential_files(tmp_path) == {}


@covers("registered-uri")
def test_a_newly_configured_redirect_host_or_port_replaces_the_registered_one(
    logged_in_service: AuthService, server: Server
) -> None:
    registered = logged_in_service.blocking.redirect_uri(server)
    assert asyncio.run(logged_in_service.start_login(server, TERMINAL)).request.redirect_uri == registered
    other = replace(server, options=replace(server.options, redirect_host="localhost"))
    assert urlsplit(logged_in_service.blocking.redirect_uri(other)).hostname == "localhost"
    port = replace(server, options=replace(server.options, redirect_port=8765))
    assert logged_in_service.blocking.redirect_uri(port) == "http://127.0.0.1:8765/callback"

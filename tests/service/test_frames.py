"""Error trackers see no pasted text, header or token in our tracebacks."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hermes_mcp_auth_remote.errors import McpAuthError, StoreUnwritable
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret, Server
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import TERMINAL, log_in
from tests.service.model import full_disk
from tests.trackers import Trackers, caught

pytestmark = pytest.mark.slow

GRANTED = {
    "access_token": "granted-access-token-in-the-document",
    "refresh_token": "granted-refresh-token-in-the-document",
    "token_type": "Bearer",
}


@pytest.fixture
def trackers(demo: Demo) -> Iterator[Trackers]:
    one = Trackers(
        demo.authorization_server.minted_secrets, {GRANTED["access_token"], GRANTED["refresh_token"]}
    )
    with one.logging():
        yield one
    assert one.sent_leaks() == []


@pytest.fixture
def secret_server(server: Server, demo: Demo) -> Server:
    """A server whose client authenticates with a header (RFC 6749 section 2.3.1)."""
    uri = "http://127.0.0.1:51234/callback"
    client = demo.authorization_server.add_client(uri, auth_method="client_secret_basic")
    assert client.secret is not None
    secret = Secret(client.secret)
    return replace(
        server,
        options=replace(server.options, client_id=client.client_id, client_secret=secret, redirect_uri=uri),
    )


def begun(service: AuthService, server: Server, trackers: Trackers) -> tuple[Login, str]:
    """Return a waiting login, and the address that its user would paste."""
    login = asyncio.run(service.start_login(server, TERMINAL))
    answer = approve(login.authorization_url)
    trackers.more |= {login.request.state.reveal(), login.request.code_verifier.reveal()}
    trackers.more |= {parse_qs(urlsplit(answer).query)["code"][0]}
    return login, answer


def finishing(service: AuthService, login: Login, answer: str) -> Awaitable[object]:
    return service.complete_login(login.id, answer, TERMINAL)


PASTES: dict[str, Callable[[str], str]] = {
    "another state": lambda it: it.replace("state=", "state=x"),
    "a parameter twice": lambda it: f"{it}&{urlsplit(it).query}",
    "another issuer": lambda it: f"{it.split('&iss=')[0]}&iss=https%3A%2F%2Felsewhere.example",
    "another address": lambda it: it.replace("/callback", "/elsewhere"),
    "no code": lambda it: it.replace("code=", "cod="),
    "a code alone": lambda it: parse_qs(urlsplit(it).query)["code"][0] + "#x#",
    "a damaged code": lambda it: it.replace("code=", "code=%00"),
    "an error": lambda it: it.replace("code=", "error=access_denied&code="),
    "far too long": lambda it: it + "x" * 100_000,
}


@covers("tracebacks-masked")
@pytest.mark.parametrize("kind", PASTES)
def test_a_paste_that_is_refused(
    service: AuthService, secret_server: Server, trackers: Trackers, kind: str
) -> None:
    login, answer = begun(service, secret_server, trackers)
    error = caught(finishing(service, login, PASTES[kind](answer)))
    assert isinstance(error, McpAuthError)
    assert trackers.leaks(error) == []


ANSWERS: dict[str, dict[str, Any]] = {
    "500": {"status": 500, "body": json.dumps(GRANTED)},
    "broken JSON": {"status": 200, "body": json.dumps(GRANTED)[:-1]},
    "a list": {"status": 200, "body": json.dumps([GRANTED])},
    "HTML": {"status": 200, "body": f"<html>{json.dumps(GRANTED)}</html>"},
    "not a Bearer token": {"status": 200, "body": json.dumps({**GRANTED, "token_type": "mac"})},
    "a token of another kind": {"status": 200, "body": json.dumps({**GRANTED, "access_token": "a b"})},
    "an error beside tokens": {"status": 200, "body": json.dumps({**GRANTED, "error": "invalid_scope"})},
    "an error": {"status": 400, "body": json.dumps({**GRANTED, "error": "invalid_grant"})},
    "a form": {
        "status": 200,
        "body": "&".join(f"{k}={v}" for k, v in GRANTED.items()) + "&" + "x=1&" * 200,
        "headers": {"content-type": "application/x-www-form-urlencoded"},
    },
    "not gzip": {"status": 200, "body": json.dumps(GRANTED), "headers": {"content-encoding": "gzip"}},
    "a redirect": {"status": 302, "body": json.dumps(GRANTED), "headers": {"location": "https://a.example/"}},
    "no response": {"hang_up": True},
    "no response after processing": {"hang_up": True, "after_processing": True},
    "too long": {"status": 200, "body": json.dumps({**GRANTED, "x": "y" * 2_000_000})},
    "too many members": {"status": 200, "body": json.dumps({**GRANTED, "x": ["y"] * 30_000})},
}


@covers("tracebacks-masked")
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_token_endpoint_that_fails_at_a_login(
    service: AuthService, secret_server: Server, demo: Demo, trackers: Trackers, kind: str
) -> None:
    login, answer = begun(service, secret_server, trackers)
    demo.authorization_server.fail_next("token", times=None, **ANSWERS[kind])
    error = caught(finishing(service, login, answer))
    assert isinstance(error, McpAuthError)
    assert trackers.leaks(error) == []


@covers("tracebacks-masked")
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_token_endpoint_that_fails_at_a_refresh(
    service: AuthService,
    secret_server: Server,
    demo: Demo,
    clock: MovedClock,
    trackers: Trackers,
    kind: str,
) -> None:
    asyncio.run(log_in(service, secret_server))
    session = service.session(secret_server)
    clock.now += 3600
    demo.authorization_server.fail_next("refresh", times=None, **ANSWERS[kind])
    for call in (
        lambda: asyncio.run(session.header()),
        session.header_blocking,
        lambda: asyncio.run(session.handle_challenge("Bearer x", 401, [])),
    ):
        error = caught(call)
        assert isinstance(error, McpAuthError)
        assert trackers.leaks(error) == []


@covers("tracebacks-masked")
def test_tokens_that_a_full_disk_does_not_take(
    service: AuthService, secret_server: Server, trackers: Trackers
) -> None:
    login, answer = begun(service, secret_server, trackers)
    work = finishing(service, login, answer)
    with full_disk():
        error = caught(work)
    assert isinstance(error, StoreUnwritable)
    assert trackers.leaks(error) == []


@covers("tracebacks-masked")
def test_a_registration_that_gives_a_secret_and_cannot_be_used(
    service: AuthService, server: Server, demo: Demo, trackers: Trackers
) -> None:
    secret = "the-secret-of-a-registration"
    trackers.more.add(secret)
    for overrides in (
        {"client_secret": secret, "redirect_uris": ["https://elsewhere.example/"]},
        {"client_secret": secret, "client_id": None},
    ):
        demo.authorization_server.change_behaviour(registration_overrides=overrides)
        error = caught(service.start_login(server, TERMINAL))
        assert isinstance(error, McpAuthError)
        assert trackers.leaks(error) == []


@covers("tracebacks-masked")
def test_a_device_poll_that_fails_with_tokens_in_its_answer(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock, trackers: Trackers
) -> None:
    demo.authorization_server.change_behaviour(with_device=True, device_interval_seconds=1)
    demo.authorization_server.fail_next(
        "device_poll", times=None, status=200, body=json.dumps({**GRANTED, "token_type": "mac"})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hermes_mcp_auth_remote.oauth.device.MIN_INTERVAL_SECONDS", 0.01)
        demo.authorization_server.change_behaviour(device_overrides={"interval": 0.01})
        login = asyncio.run(service.start_login(server, TERMINAL, flow="device"))
    assert login.poll_state is not None
    trackers.more.add(login.poll_state.parameters.authorization.device_code.reveal())
    assert asyncio.run(service.wait_for_login(login.id)).status == "failed"
    with pytest.MonkeyPatch.context() as patch:
        boom(patch, trackers, "service.device_logins.advance_poll")
        login = asyncio.run(service.start_login(server, TERMINAL, flow="device"))
        assert login.poll_state is not None
        trackers.more.add(login.poll_state.parameters.authorization.device_code.reveal())
        error = caught(service.wait_for_login(login.id))
    assert isinstance(error, RuntimeError)
    assert trackers.leaks(error) == []


class Boom(RuntimeError):
    """An error that no code of ours expects."""


def boom(patch: pytest.MonkeyPatch, trackers: Trackers, where: str, *, after: bool = False) -> list[str]:
    """Make a function raise Boom. Return the list of frames that held a secret when it was called."""
    module, _, name = where.rpartition(".")
    owner: Any
    try:
        owner = importlib.import_module(f"hermes_mcp_auth_remote.{module}")
    except ModuleNotFoundError:
        module, _, kind = module.rpartition(".")
        owner = getattr(importlib.import_module(f"hermes_mcp_auth_remote.{module}"), kind)
    before = getattr(owner, name)
    held: list[str] = []

    def fail(*given: Any, **named: Any) -> Any:
        held.extend(trackers.live_leaks())
        if after:
            before(*given, **named)
        del given, named
        raise Boom("an unexpected error")

    patch.setattr(owner, name, fail)
    return held


# Our frames that wait for a lock, a file or a server hold no secret either: the event that a tracker makes of
# a log line may show the active frames (`attach_stacktrace`).
WAITS = frozenset(
    {
        "service.logins.can_complete",
        "service.logins.read_authorization_response",
        "service.logins.exchange_code",
        "oauth.token.post_form",
        "http.client._encode_headers",
        "http.client.read_body",
        "http.client.HttpClient._pool_for",
        "service.complete_login.carry_over_refresh_token",
        "store.files.credential_files.FileStore.save_login",
        "store.files.credential_files.FileStore.save_tokens",
        "service.refresh.refresh_tokens",
        "service.refresh.make_cached_token",
    }
)
AT_A_PASTE = (
    "service.logins.can_complete",
    "service.logins.read_authorization_response",
    "oauth.redirect.extract_candidates",
    "oauth.redirect._check_response",
    "service.logins.Logins.claim",
    "service.logins.exchange_code",
    "oauth.token.authenticate_client",
    "oauth.token.post_form",
    "oauth.wire.urlencode",
    "oauth.token.read_token_response",
    "oauth.token.sanitize",
    "oauth.token._read_tokens",
    "oauth.token.account_from_id_token",
    "http.client._encode_headers",
    "http.client.read_body",
    "http.client.decompress_body",
    "http.client.HttpClient._pool_for",
    "service.complete_login.credentials_of",
    "service.complete_login.require_dpop",
    "service.complete_login.carry_over_refresh_token",
    "store.files.credential_files.FileStore.save_login",
    "store.files.credential_files.tokens_document",
    "store.files.credential_files.encode_document",
    "store.files.commit.stage_private",
    "store.files.private_files.os.fsync",
    "service.sessions.Session.adopt",
    "service.connection_from_credentials",
)


@covers("tracebacks-masked")
@pytest.mark.parametrize("where", AT_A_PASTE)
def test_a_fault_anywhere_on_the_way_of_a_paste(
    service: AuthService,
    secret_server: Server,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    login, answer = begun(service, secret_server, trackers)
    held = boom(monkeypatch, trackers, where)
    error = caught(finishing(service, login, answer))
    assert isinstance(error, Boom)
    assert trackers.leaks(error) == []
    told = "".join(each for _, each in trackers.shown(error))
    # The traceback still shows where the error happened.
    assert "fail" in told
    assert "hermes_mcp_auth_remote/service/__init__.py" in told
    if where in WAITS:
        assert held == []


AT_A_REFRESH = (
    "service.refresh.refresh_tokens",
    "service.refresh.make_cached_token",
    "oauth.token.authenticate_client",
    "oauth.token.post_form",
    "oauth.token.read_token_response",
    "oauth.token._read_tokens",
    "http.client._encode_headers",
    "http.client.read_body",
    "store.files.credential_files.FileStore.save_tokens",
    "store.files.credential_files.encode_document",
    "store.files.credential_files.write_private",
    "store.files.credential_files.read_tokens",
    "store.files.credential_files.decode_document",
    "store.files.credential_files.read_client",
    "service.unsaved_tokens._access_token_of",
)


@covers("tracebacks-masked")
@pytest.mark.parametrize("where", AT_A_REFRESH)
def test_a_fault_anywhere_on_the_way_of_a_refresh(
    service: AuthService,
    secret_server: Server,
    clock: MovedClock,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    asyncio.run(log_in(service, secret_server))
    session = service.session(secret_server)
    refused = asyncio.run(session.header())
    clock.now += 3600
    held = boom(monkeypatch, trackers, where)
    error = caught(session.header())
    assert isinstance(error, Boom)
    assert trackers.leaks(error) == []
    error = caught(session.header_blocking)
    assert trackers.leaks(error) == []
    error = caught(session.handle_challenge(refused, 401, []))
    assert isinstance(error, Boom | McpAuthError)
    assert trackers.leaks(error) == []
    if where in WAITS:
        assert held == []


@covers("tracebacks-masked")
def test_a_fault_while_logging_out_and_while_reading_what_is_stored(
    service: AuthService,
    secret_server: Server,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asyncio.run(log_in(service, secret_server))
    for where in ("service.revoke_tokens", "oauth.token.post_form", "service.connections.revocation_request"):
        with monkeypatch.context() as patch:
            boom(patch, trackers, where)
            assert trackers.leaks(caught(service.logout(secret_server))) == []
    for where in (
        "store.files.credential_files.read_tokens",
        "store.files.credential_files.decode_document",
        "store.files.credential_files.reconcile",
    ):
        with monkeypatch.context() as patch:
            boom(patch, trackers, where)
            for call in (
                lambda: service.read_credentials(secret_server),
                lambda: service.connection(secret_server),
                lambda: service.redirect_uri(secret_server),
            ):
                error = caught(call)
                assert isinstance(error, Boom)
                assert trackers.leaks(error) == []


@covers("tracebacks-masked")
def test_a_login_that_is_cancelled_in_the_middle(
    service: AuthService, secret_server: Server, demo: Demo, trackers: Trackers
) -> None:
    login, answer = begun(service, secret_server, trackers)
    gate = demo.authorization_server.hold("token")

    async def main(work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        await asyncio.to_thread(gate.arrived.wait)
        task.cancel()
        await task

    work = finishing(service, login, answer)
    error = caught(main(work))
    gate.open()
    assert isinstance(error, asyncio.CancelledError)
    assert trackers.leaks(error) == []


@covers("tracebacks-masked")
def test_the_harness_sees_what_a_frame_holds(trackers: Trackers, demo: Demo) -> None:
    demo.authorization_server.minted_secrets.add("a-secret-that-a-frame-holds")

    def fail() -> None:
        text = {"deep": [b"a-secret-that-a-frame-holds"]}
        raise Boom(len(text))

    error = caught(fail)
    assert {"sentry", "rich", "traceback"} <= set(trackers.leaks(error))
    demo.authorization_server.minted_secrets.discard("a-secret-that-a-frame-holds")
    trackers.transport.sent.clear()

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
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.error_trackers import ErrorTrackers, catch_error
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import TERMINAL, log_in
from tests.service.model import full_disk

pytestmark = pytest.mark.slow

GRANTED = {
    "access_token": "granted-access-token-in-the-document",
    "refresh_token": "granted-refresh-token-in-the-document",
    "token_type": "Bearer",
}


@pytest.fixture
def trackers(demo: Demo) -> Iterator[ErrorTrackers]:
    trackers = ErrorTrackers(
        demo.authorization_server.minted_secrets, {GRANTED["access_token"], GRANTED["refresh_token"]}
    )
    with trackers.capture_error_logs():
        yield trackers
    assert trackers.find_sent_leaks() == []


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


def start_login(service: AuthService, server: Server, trackers: ErrorTrackers) -> tuple[Login, str]:
    """Return a waiting login, and the address that its user would paste."""
    login = asyncio.run(service.start_login(server, TERMINAL))
    answer = approve(login.authorization_url)
    trackers.extra_secrets |= {login.request.state.reveal(), login.request.code_verifier.reveal()}
    trackers.extra_secrets |= {parse_qs(urlsplit(answer).query)["code"][0]}
    return login, answer


def complete_login(service: AuthService, login: Login, answer: str) -> Awaitable[object]:
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
def test_a_refused_paste_leaks_nothing(
    service: AuthService, secret_server: Server, trackers: ErrorTrackers, kind: str
) -> None:
    login, answer = start_login(service, secret_server, trackers)
    error = catch_error(complete_login(service, login, PASTES[kind](answer)))
    assert isinstance(error, McpAuthError)
    assert trackers.find_leaks(error) == []


RESPONSES: dict[str, dict[str, Any]] = {
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
@pytest.mark.parametrize("kind", RESPONSES)
def test_a_failing_token_endpoint_leaks_nothing_at_a_login(
    service: AuthService, secret_server: Server, demo: Demo, trackers: ErrorTrackers, kind: str
) -> None:
    login, answer = start_login(service, secret_server, trackers)
    demo.authorization_server.fail_next("token", times=None, **RESPONSES[kind])
    error = catch_error(complete_login(service, login, answer))
    assert isinstance(error, McpAuthError)
    assert trackers.find_leaks(error) == []


@covers("tracebacks-masked")
@pytest.mark.parametrize("kind", RESPONSES)
def test_a_failing_token_endpoint_leaks_nothing_at_a_refresh(
    service: AuthService,
    secret_server: Server,
    demo: Demo,
    clock: ManualClock,
    trackers: ErrorTrackers,
    kind: str,
) -> None:
    asyncio.run(log_in(service, secret_server))
    session = service.session(secret_server)
    clock.now += 3600
    demo.authorization_server.fail_next("refresh", times=None, **RESPONSES[kind])
    for call in (
        lambda: asyncio.run(session.header()),
        session.header_blocking,
        lambda: asyncio.run(session.handle_challenge("Bearer x", 401, [])),
    ):
        error = catch_error(call)
        assert isinstance(error, McpAuthError)
        assert trackers.find_leaks(error) == []


@covers("tracebacks-masked")
def test_tokens_that_a_full_disk_refuses_are_not_leaked(
    service: AuthService, secret_server: Server, trackers: ErrorTrackers
) -> None:
    login, answer = start_login(service, secret_server, trackers)
    work = complete_login(service, login, answer)
    with full_disk():
        error = catch_error(work)
    assert isinstance(error, StoreUnwritable)
    assert trackers.find_leaks(error) == []


@covers("tracebacks-masked")
def test_the_secret_of_an_unusable_registration_is_not_leaked(
    service: AuthService, server: Server, demo: Demo, trackers: ErrorTrackers
) -> None:
    secret = "the-secret-of-a-registration"
    trackers.extra_secrets.add(secret)
    for overrides in (
        {"client_secret": secret, "redirect_uris": ["https://elsewhere.example/"]},
        {"client_secret": secret, "client_id": None},
    ):
        demo.authorization_server.change_behaviour(registration_overrides=overrides)
        error = catch_error(service.start_login(server, TERMINAL))
        assert isinstance(error, McpAuthError)
        assert trackers.find_leaks(error) == []


@covers("tracebacks-masked")
def test_a_failing_device_poll_with_tokens_in_its_response_leaks_nothing(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock, trackers: ErrorTrackers
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
    trackers.extra_secrets.add(login.poll_state.parameters.authorization.device_code.reveal())
    assert asyncio.run(service.wait_for_login(login.id)).status == "failed"
    with pytest.MonkeyPatch.context() as patch:
        inject_error(patch, trackers, "service.device_logins.advance_poll")
        login = asyncio.run(service.start_login(server, TERMINAL, flow="device"))
        assert login.poll_state is not None
        trackers.extra_secrets.add(login.poll_state.parameters.authorization.device_code.reveal())
        error = catch_error(service.wait_for_login(login.id))
    assert isinstance(error, RuntimeError)
    assert trackers.find_leaks(error) == []


class InjectedError(RuntimeError):
    """An error that no code of ours expects."""


def inject_error(
    patch: pytest.MonkeyPatch, trackers: ErrorTrackers, function_path: str, *, call_first: bool = False
) -> list[str]:
    """Make a function raise InjectedError. Return the frames that held a secret at the time of the call."""
    module, _, name = function_path.rpartition(".")
    owner: Any
    try:
        owner = importlib.import_module(f"hermes_mcp_auth_remote.{module}")
    except ModuleNotFoundError:
        module, _, kind = module.rpartition(".")
        owner = getattr(importlib.import_module(f"hermes_mcp_auth_remote.{module}"), kind)
    original = getattr(owner, name)
    leaking_frames: list[str] = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        leaking_frames.extend(trackers.find_live_leaks())
        if call_first:
            original(*args, **kwargs)
        del args, kwargs
        raise InjectedError("an unexpected error")

    patch.setattr(owner, name, fail)
    return leaking_frames


# Our frames that wait for a lock, a file or a server must hold no secret either. If a tracker makes an
# event from a log line, the event may show these active frames (`attach_stacktrace`).
WAITING_FUNCTIONS = frozenset(
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
FAULTS_DURING_PASTE = (
    "service.logins.can_complete",
    "service.logins.read_authorization_response",
    "oauth.redirect.extract_candidates",
    "oauth.redirect._check_response",
    "service.complete_login.LoginCompletion.claim",
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
    "store.files.login_commit.stage_private",
    "store.files.private_files.os.fsync",
    "service.sessions.Session.adopt",
    "service.connection_from_credentials",
)


@covers("tracebacks-masked")
@pytest.mark.parametrize("function_path", FAULTS_DURING_PASTE)
def test_an_error_in_any_step_of_a_paste_leaks_nothing(
    service: AuthService,
    secret_server: Server,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
    function_path: str,
) -> None:
    login, answer = start_login(service, secret_server, trackers)
    leaking_frames = inject_error(monkeypatch, trackers, function_path)
    error = catch_error(complete_login(service, login, answer))
    assert isinstance(error, InjectedError)
    assert trackers.find_leaks(error) == []
    traceback_text = "".join(text for _, text in trackers.tracker_records(error))
    # The traceback still shows where the error happened.
    assert "fail" in traceback_text
    assert "hermes_mcp_auth_remote/service/__init__.py" in traceback_text
    if function_path in WAITING_FUNCTIONS:
        assert leaking_frames == []


FAULTS_DURING_REFRESH = (
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
    "store.files.session_files.read_tokens",
    "store.files.session_files.decode_document",
    "store.files.session_files.read_client",
    "service.unsaved_tokens._access_token_of",
)


@covers("tracebacks-masked")
@pytest.mark.parametrize("function_path", FAULTS_DURING_REFRESH)
def test_an_error_in_any_step_of_a_refresh_leaks_nothing(
    service: AuthService,
    secret_server: Server,
    clock: ManualClock,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
    function_path: str,
) -> None:
    asyncio.run(log_in(service, secret_server))
    session = service.session(secret_server)
    refused = asyncio.run(session.header())
    clock.now += 3600
    leaking_frames = inject_error(monkeypatch, trackers, function_path)
    error = catch_error(session.header())
    assert isinstance(error, InjectedError)
    assert trackers.find_leaks(error) == []
    error = catch_error(session.header_blocking)
    assert trackers.find_leaks(error) == []
    error = catch_error(session.handle_challenge(refused, 401, []))
    assert isinstance(error, InjectedError | McpAuthError)
    assert trackers.find_leaks(error) == []
    if function_path in WAITING_FUNCTIONS:
        assert leaking_frames == []


@covers("tracebacks-masked")
def test_an_error_at_a_logout_or_while_reading_credentials_leaks_nothing(
    service: AuthService,
    secret_server: Server,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asyncio.run(log_in(service, secret_server))
    for function_path in (
        "service.revoke_tokens",
        "oauth.token.post_form",
        "service.revocation.revocation_request",
    ):
        with monkeypatch.context() as patch:
            inject_error(patch, trackers, function_path)
            assert trackers.find_leaks(catch_error(service.logout(secret_server))) == []
    for function_path in (
        "store.files.session_files.read_tokens",
        "store.files.session_files.decode_document",
        "store.files.session_files.reconcile",
    ):
        with monkeypatch.context() as patch:
            inject_error(patch, trackers, function_path)
            for call in (
                lambda: service.blocking.read_credentials(secret_server),
                lambda: service.blocking.connection(secret_server),
                lambda: service.blocking.redirect_uri(secret_server),
            ):
                error = catch_error(call)
                assert isinstance(error, InjectedError)
                assert trackers.find_leaks(error) == []


@covers("tracebacks-masked")
def test_a_login_that_is_cancelled_halfway_leaks_nothing(
    service: AuthService, secret_server: Server, demo: Demo, trackers: ErrorTrackers
) -> None:
    login, answer = start_login(service, secret_server, trackers)
    gate = demo.authorization_server.hold("token")

    async def main(work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        await asyncio.to_thread(gate.arrived.wait)
        task.cancel()
        await task

    work = complete_login(service, login, answer)
    error = catch_error(main(work))
    gate.open()
    assert isinstance(error, asyncio.CancelledError)
    assert trackers.find_leaks(error) == []


@covers("tracebacks-masked")
def test_the_trackers_see_the_locals_of_a_frame(trackers: ErrorTrackers, demo: Demo) -> None:
    demo.authorization_server.minted_secrets.add("a-secret-that-a-frame-holds")

    def fail() -> None:
        text = {"deep": [b"a-secret-that-a-frame-holds"]}
        raise InjectedError(len(text))

    error = catch_error(fail)
    assert {"sentry", "rich", "traceback"} <= set(trackers.find_leaks(error))
    demo.authorization_server.minted_secrets.discard("a-secret-that-a-frame-holds")
    trackers.transport.sent.clear()

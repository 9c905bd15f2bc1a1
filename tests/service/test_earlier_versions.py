"""Sessions, waiting logins and notices that an earlier version stored still work."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlencode

import pytest

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.parts.sample_home import NOW, VERSIONS, FakeAuthorizationServer, copy_home
from tests.requirements import covers

NOTES = Server("notes", "https://mcp.notes.example/mcp")
CALENDAR = Server("calendar", "https://mcp.notes.example/later")
BOUND = Server("bound", "https://mcp.bound.example/mcp")
USER = "telegram:42"

pytestmark = pytest.mark.parametrize("version", VERSIONS)


def read_tokens(service: AuthService, server: Server, owner: str | None = None) -> Tokens:
    tokens = service.blocking.read_credentials(server, owner).tokens
    assert tokens is not None
    return tokens


def find_waiting_login(service: AuthService, flow: str) -> Login:
    (login,) = (
        candidate
        for candidate in service.blocking.waiting_logins()
        if (candidate.poll_state is not None) == (flow == "device")
    )
    return login


@covers("earlier-home")
def test_each_session_is_read_and_its_token_is_sent(tmp_path: Path, version: str) -> None:
    service = AuthService(copy_home(tmp_path, version), clock=lambda: NOW)
    keys = {CredentialKey("notes", None), CredentialKey("notes", USER), CredentialKey("bound", None)}
    assert set(service.blocking.keys()) == keys
    for server, owner in ((NOTES, None), (NOTES, USER), (BOUND, None)):
        stored = service.blocking.read_credentials(server, owner)
        assert stored.binding is not None
        assert stored.binding.server_url == server.url
        header = asyncio.run(service.session(server, owner).header())
        assert header == read_tokens(service, server, owner).authorization_header


@covers("earlier-home")
def test_a_session_is_refreshed_with_the_stored_client_and_metadata(tmp_path: Path, version: str) -> None:
    provider = FakeAuthorizationServer()
    service = AuthService(copy_home(tmp_path, version), run_exchange=provider.run, clock=lambda: NOW + 3600)
    spent = read_tokens(service, NOTES).refresh_token
    assert spent is not None
    assert asyncio.run(service.session(NOTES).header()) == "Bearer new-access-token"
    (form,) = provider.forms
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", spent.reveal())
    assert [request.url for request in provider.requests] == ["https://as.notes.example/token"]
    assert read_tokens(service, NOTES).authorization_header == "Bearer new-access-token"


@covers("earlier-home")
def test_a_bound_session_is_refreshed_with_its_key(tmp_path: Path, version: str) -> None:
    provider = FakeAuthorizationServer()
    provider.tokens = {**provider.tokens, "token_type": "DPoP"}
    service = AuthService(copy_home(tmp_path, version), run_exchange=provider.run, clock=lambda: NOW + 3600)
    session = service.session(BOUND)
    assert asyncio.run(session.header()) == "DPoP new-access-token"
    assert session.prover is not None
    assert "dpop" in dict(provider.requests[0].headers)


@covers("earlier-home")
def test_a_waiting_code_login_is_completed(tmp_path: Path, version: str) -> None:
    provider = FakeAuthorizationServer()
    service = AuthService(copy_home(tmp_path, version), run_exchange=provider.run, clock=lambda: NOW + 60)
    login = find_waiting_login(service, "code")
    assert login.message_ids == ("1001", "1002")
    query = {
        "code": "an-authorization-code",
        "state": login.request.state.reveal(),
        "iss": "https://as.notes.example",
    }
    address = f"{login.request.redirect_uri}?{urlencode(query)}"
    asyncio.run(service.complete_login(login.id, address, login.origin))
    assert provider.forms[0]["code_verifier"] == login.request.code_verifier.reveal()
    assert read_tokens(service, CALENDAR, USER).authorization_header == "Bearer new-access-token"


@covers("earlier-home")
def test_a_waiting_device_login_is_polled_until_it_ends(tmp_path: Path, version: str) -> None:
    provider = FakeAuthorizationServer()
    service = AuthService(copy_home(tmp_path, version), run_exchange=provider.run, clock=lambda: NOW + 60)
    login = find_waiting_login(service, "device")
    assert asyncio.run(service.wait_for_login(login.id)).status == "done"
    assert provider.forms[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
    assert read_tokens(service, CALENDAR).authorization_header == "Bearer new-access-token"


@covers("earlier-home")
def test_notices_are_read(tmp_path: Path, version: str) -> None:
    (notice,) = AuthService(copy_home(tmp_path, version), clock=lambda: NOW).blocking.notices.list_all()
    assert (notice.platform, notice.user, notice.key) == ("telegram", "42", CredentialKey("notes", USER))
    assert (notice.at, notice.message) == (NOW, "1003")

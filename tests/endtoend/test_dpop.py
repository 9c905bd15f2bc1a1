"""DPoP at a certified authorization server: create, store, use and delete the key."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin, Server, ServerOptions
from tests.parts.browser_user import approve_oidc
from tests.parts.oidc_provider import FEATURES, OidcOptions, OidcProvider, run_oidc_provider
from tests.parts.protected_resource import ProtectedResource, serve_protected_resource
from tests.requirements import covers

pytestmark = pytest.mark.node

TERMINAL = Origin("terminal")


@pytest.fixture(scope="module")
def op() -> Iterator[OidcProvider]:
    with run_oidc_provider(OidcOptions(features=FEATURES | {"dPoP"})) as op:
        yield op


@pytest.fixture(scope="module")
def resource(op: OidcProvider) -> Iterator[ProtectedResource]:
    with serve_protected_resource(op) as resource:
        yield resource


async def log_in(service: AuthService, server: Server) -> None:
    login = await service.start_login(server, TERMINAL)
    redirect = await asyncio.to_thread(approve_oidc, login.authorization_url)
    await service.complete_login(login.id, redirect, TERMINAL)


@covers("dpop-key", "dpop-proof")
def test_the_dpop_key_survives_a_restart_and_is_deleted_at_logout(
    resource: ProtectedResource, tmp_path: Path
) -> None:
    async def run_story() -> None:
        server = Server("real", resource.url, ServerOptions(dpop=True))
        service = AuthService(tmp_path)
        await log_in(service, server)
        key_file = tmp_path / "mcp-tokens" / "real.dpop.json"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        first = await service.session(server).header()
        assert first.startswith("DPoP ")
        prover = service.session(server).prover
        assert prover is not None

        # Another process: the server accepts the refresh token only with a proof of the key.
        later_session = AuthService(tmp_path).session(server)
        second = await later_session.handle_challenge(first, 401, [])
        assert second is not None
        assert second.startswith("DPoP ")
        assert second != first
        assert later_session.prover is not None
        assert later_session.prover.thumbprint == prover.thumbprint

        # A new login creates a new key.
        await log_in(service, server)
        new_prover = service.session(server).prover
        assert new_prover is not None
        assert new_prover.thumbprint != prover.thumbprint

        assert await service.logout(server)
        assert not key_file.exists()

    asyncio.run(run_story())


@covers("dpop-key")
def test_a_session_without_its_key_needs_a_login(resource: ProtectedResource, tmp_path: Path) -> None:
    async def run_story() -> None:
        server = Server("real", resource.url, ServerOptions(dpop=True))
        await log_in(AuthService(tmp_path), server)
        (tmp_path / "mcp-tokens" / "real.dpop.json").unlink()
        with pytest.raises(AuthorizationRequired, match="key"):
            await AuthService(tmp_path).session(server).header()

    asyncio.run(run_story())


@covers("dpop-choice")
def test_dpop_is_not_used_unless_it_is_required(resource: ProtectedResource, tmp_path: Path) -> None:
    async def run_story() -> None:
        server = Server("real", resource.url)
        service = AuthService(tmp_path)
        await log_in(service, server)
        assert (await service.session(server).header()).startswith("Bearer ")
        assert service.session(server).prover is None
        assert not (tmp_path / "mcp-tokens" / "real.dpop.json").exists()

        # The next login creates a key. The login after it does not use DPoP and deletes the key.
        await log_in(service, replace(server, options=ServerOptions(dpop=True)))
        assert (tmp_path / "mcp-tokens" / "real.dpop.json").exists()
        await log_in(service, server)
        assert not (tmp_path / "mcp-tokens" / "real.dpop.json").exists()

    asyncio.run(run_story())

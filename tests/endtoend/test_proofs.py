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
from tests.parts.oidc_provider import FEATURES, OidcOptions, OidcProvider, oidc_provider
from tests.parts.person import approve_oidc
from tests.parts.protected_resource import ProtectedResource, protected_resource
from tests.requirements import covers

pytestmark = pytest.mark.node

HERE = Origin("terminal")


@pytest.fixture(scope="module")
def op() -> Iterator[OidcProvider]:
    with oidc_provider(OidcOptions(features=FEATURES | {"dPoP"})) as op:
        yield op


@pytest.fixture(scope="module")
def resource(op: OidcProvider) -> Iterator[ProtectedResource]:
    with protected_resource(op) as resource:
        yield resource


async def log_in(service: AuthService, server: Server) -> None:
    login = await service.start_login(server, HERE)
    redirect = await asyncio.to_thread(approve_oidc, login.authorization_url)
    await service.complete_login(login.id, redirect, HERE)


@covers("dpop-key", "dpop-proof")
def test_the_key_of_a_session_outlives_the_process_and_ends_with_the_session(
    resource: ProtectedResource, tmp_path: Path
) -> None:
    async def story() -> None:
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
        later = AuthService(tmp_path).session(server)
        second = await later.handle_challenge(first, 401, [])
        assert second is not None
        assert second.startswith("DPoP ")
        assert second != first
        assert later.prover is not None
        assert later.prover.thumbprint == prover.thumbprint

        # A new login creates a new key.
        await log_in(service, server)
        fresh = service.session(server).prover
        assert fresh is not None
        assert fresh.thumbprint != prover.thumbprint

        assert await service.logout(server)
        assert not key_file.exists()

    asyncio.run(story())


@covers("dpop-key")
def test_without_its_key_a_session_is_over(resource: ProtectedResource, tmp_path: Path) -> None:
    async def story() -> None:
        server = Server("real", resource.url, ServerOptions(dpop=True))
        await log_in(AuthService(tmp_path), server)
        (tmp_path / "mcp-tokens" / "real.dpop.json").unlink()
        with pytest.raises(AuthorizationRequired, match="key"):
            await AuthService(tmp_path).session(server).header()

    asyncio.run(story())


@covers("dpop-choice")
def test_a_resource_that_says_nothing_of_proofs_gets_plain_tokens(
    resource: ProtectedResource, tmp_path: Path
) -> None:
    async def story() -> None:
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

    asyncio.run(story())

"""Device logins at a certified authorization server, with tokens bound to a DPoP key."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin, Server, ServerOptions
from tests.parts.browser_user import approve_device
from tests.parts.oidc_provider import FEATURES, OidcOptions, run_oidc_provider
from tests.parts.protected_resource import serve_protected_resource
from tests.requirements import covers

pytestmark = pytest.mark.node


@covers("device-poll", "dpop-key")
def test_tokens_of_a_device_login_are_bound_to_a_key(tmp_path: Path) -> None:
    async def log_in_by_device(service: AuthService, server: Server) -> Login:
        login = await service.start_login(server, Origin("terminal"), flow="auto")
        code = login.device_authorization
        assert code is not None
        await asyncio.to_thread(approve_device, code.verification_uri, code.user_code)
        async with asyncio.timeout(60):
            return await service.wait_for_login(login.id)

    with (
        run_oidc_provider(OidcOptions(features=FEATURES | {"dPoP"})) as op,
        serve_protected_resource(op) as resource,
    ):
        server = Server("real", resource.url, ServerOptions(dpop=True))
        service = AuthService(tmp_path)
        assert asyncio.run(log_in_by_device(service, server)).status == "done"
        # Another process reads the key from the store and refreshes with it.
        session = AuthService(tmp_path).session(server)
        first = asyncio.run(session.header())
        assert first.startswith("DPoP ")
        second = asyncio.run(session.handle_challenge(first, 401, []))
        assert second is not None
        assert second.startswith("DPoP ")
        assert second != first

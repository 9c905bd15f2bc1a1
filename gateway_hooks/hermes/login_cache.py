"""Keep a profile's logins and configured redirect URIs in memory.

Hermes's hook must decide on the gateway's event loop, at once, whether a message is for this package. So the
hook may not read a file: a thread reads the files, and the hook uses what the thread read last.
"""

from __future__ import annotations

import asyncio
import time

from gateway_hooks.dialog.servers import redirect_uris
from gateway_hooks.runtime.config_servers import ConfigServers
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.protocol import UNKNOWN, Unknown, Version
from hermes_mcp_auth_remote.threads import run_file_work

# When a login expires, no file changes. So read the logins at least this often.
MAX_AGE_SECONDS = 10.0


class LoginCache:
    """The logins of one HERMES_HOME, and the redirect URIs of its config.yaml, as last read.

    `refresh` is called twice a second, and before a user sees a login or its outcome. So the cache has each
    login that a user can answer.
    """

    def __init__(self, service: AuthService, servers: ConfigServers) -> None:
        self.service = service
        self.servers = servers
        self.is_loaded = False
        self.logins: tuple[Login, ...] = ()
        self.configured_uris: tuple[str, ...] = ()
        # Why the logins could not be read at the last attempt.
        self.error: McpAuthError | None = None
        self._version: Version | Unknown = UNKNOWN
        self._reload_at = 0.0
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    async def refresh(self) -> None:
        """Read what has changed, in a thread. Raises nothing: after a failure, `error` has the reason."""
        # One read at a time: an older result must not replace a newer one.
        async with self._lock:
            previous_logins = self.logins
            await run_file_work(self.load)
        if self.logins != previous_logins:
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait_for_change(self) -> None:
        """Wait until `refresh` has read a changed login."""
        await self._changed.wait()

    def load(self) -> None:
        """Read what has changed. Blocks."""
        self.configured_uris = redirect_uris(self.servers)
        try:
            version = self.service.glance_logins()
            is_changed = version is UNKNOWN or version != self._version
            if is_changed or time.monotonic() >= self._reload_at:
                self.logins = tuple(self.service.blocking.logins())
                self._reload_at = time.monotonic() + MAX_AGE_SECONDS
                self._version = version
            self.error = None
        except McpAuthError as error:
            self.logins, self.error, self._version = (), error, UNKNOWN
        self.is_loaded = True

    def logins_of(self, platform: str) -> list[Login]:
        """List the logins of a platform, oldest first. Reads no file."""
        return [login for login in self.logins if login.origin.platform == platform]

"""An McpAuth for httpx and for httpx2: one object serves the clients of both libraries.

`auth.httpx` and `auth.httpx2` import only their own library. This module imports each installed library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_mcp_auth_remote.auth.library_auth import LibraryAuth
from hermes_mcp_auth_remote.installation import install_command

if TYPE_CHECKING:
    import httpx
    import httpx2

    class McpAuth(LibraryAuth, httpx.Auth, httpx2.Auth):
        """Auth for clients of httpx and httpx2: `AsyncClient(auth=McpAuth("linear"))`; see `LibraryAuth`."""

else:
    try:
        import httpx
    except ImportError:
        httpx = None
    try:
        import httpx2
    except ImportError:
        httpx2 = None
    _libraries = [library for library in (httpx, httpx2) if library is not None]
    if not _libraries:
        message = (
            "McpAuth needs httpx or httpx2, and neither is installed. "
            f"Install the one that your HTTP client uses: {install_command('httpx2')}"
        )
        raise ImportError(message)

    class McpAuth(LibraryAuth, *(library.Auth for library in _libraries)):
        """Auth for clients of httpx and httpx2: `AsyncClient(auth=McpAuth("linear"))`; see `LibraryAuth`."""

        _parse_url = staticmethod(_libraries[0].URL)

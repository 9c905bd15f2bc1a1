"""HERMES_HOME directories that earlier versions wrote (tests/samples/home-*).

    home = copy_home(tmp_path)
    service = AuthService(home, run=FakeAuthorizationServer().run, clock=lambda: NOW)

At the time NOW, each home contains: the operator's sessions `notes` and `bound` (the token of `bound` is
bound to a key), a chat user's session `notes`, a pending code login and a pending device login of
`calendar`, finished logins, and a notice to the chat user. `tests.samples.make_home` wrote these homes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.values import Server
from tests.exchange_script import form_of, make_response
from tests.samples.make_home import NOW

T = TypeVar("T")

SAMPLES = Path(__file__).parents[1] / "samples"
VERSIONS = sorted(path.name.removeprefix("home-") for path in SAMPLES.glob("home-*"))
__all__ = ["NOW", "SAMPLES", "VERSIONS", "FakeAuthorizationServer", "copy_home"]


def copy_home(folder: Path, version: str = VERSIONS[-1]) -> Path:
    """Copy a home to `folder`/hermes and set the file modes, because git does not store modes."""
    home = folder / "hermes"
    shutil.copytree(SAMPLES / f"home-{version}", home)
    for path in (home, *home.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (home / "config.yaml").chmod(0o644)
    return home


@dataclass
class FakeAuthorizationServer:
    """The authorization server of a sample home. It answers and records each token request."""

    tokens: Mapping[str, object] = field(
        default_factory=lambda: {
            "access_token": "new-access-token",
            "refresh_token": "new-refresh-token",
            "token_type": "Bearer",
            "expires_in": 3600,
        }
    )
    requests: list[Request] = field(default_factory=list[Request])
    forms: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def run(self, exchange: Exchange[T], server: Server) -> T:
        """Run an exchange as `http.client.run` does; ignore `server`."""
        try:
            request = next(exchange)
            while True:
                request = exchange.send(self._respond(request))
        except StopIteration as end:
            result: T = end.value
            return result

    def _respond(self, request: Request) -> Response:
        self.requests.append(request)
        if request.url.endswith("/token"):
            self.forms.append(form_of(request))
            return make_response(200, self.tokens)
        return make_response(404, json.dumps({}).encode())

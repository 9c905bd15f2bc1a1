"""Write a HERMES_HOME as this version of the program writes it, for the tests of later versions.

    python -m tests.samples.make_home tests/samples/home-0.1.0

The demo servers listen on loopback. In the result, names of hosts below `.example` replace their addresses,
so that the result does not depend on a port. The service's clock stands still at NOW.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.protocol import Notice
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Server
from tests.consent_form import approve
from tests.parts.authorization_server import Behaviour, Demo, serve_demo

NOW = 1_800_000_000.0
TERMINAL = Origin("terminal")
OWNER = "telegram:42"
ANNA = Origin("telegram", chat_id="42", user_id="42")
CONFIG = """\
mcp_servers:
  notes:
    url: https://mcp.notes.example/mcp
    auth: oauth
  bound:
    url: https://mcp.bound.example/mcp
    auth: oauth
  calendar:
    url: https://mcp.notes.example/later
    auth: oauth
"""


async def log_in(service: AuthService, server: Server, origin: Origin, owner: str | None = None) -> None:
    login = await service.start_login(server, origin, owner=owner)
    answer = await asyncio.to_thread(approve, login.authorization_url)
    await service.complete_login(login.id, answer, origin)


async def write_home(service: AuthService, demo: Demo) -> None:
    """Log in as the operator and as a chat user; leave one code login and one device login waiting."""
    notes = Server("notes", demo.resources.origin + "/mcp")
    calendar = Server("calendar", demo.resources.origin + "/later")
    await log_in(service, notes, TERMINAL)
    await log_in(service, notes, ANNA, OWNER)
    waiting = await service.start_login(calendar, ANNA, owner=OWNER)
    await service.save_messages(waiting.id, ("1001", "1002"))
    await service.start_login(calendar, TERMINAL, flow="device")
    cancelled = await service.start_login(notes, TERMINAL)
    await service.cancel(cancelled.id)
    notice = Notice(
        "telegram", "42", CredentialKey("notes", OWNER), is_over=False, at=NOW, of_tokens=NOW, message="1003"
    )
    service.blocking.notices.replace(None, notice)


def main(destination: Path) -> None:
    """Write the home below `destination`, which is removed first."""
    plain = Behaviour(with_device=True)
    bound = Behaviour(
        metadata_overrides={"dpop_signing_alg_values_supported": ["ES256"]},
        resource_overrides={"dpop_bound_access_tokens_required": True},
        token_overrides={"token_type": "DPoP"},
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_demo(plain, paths=("/mcp", "/later")) as demo,
        serve_demo(bound) as bound_demo,
    ):
        home = Path(folder, "home")
        service = AuthService(home, clock=lambda: NOW)
        asyncio.run(write_home(service, demo))
        asyncio.run(log_in(service, Server("bound", bound_demo.mcp_url), TERMINAL))
        hosts = {
            demo.authorization_server.origin: "https://as.notes.example",
            demo.resources.origin: "https://mcp.notes.example",
            bound_demo.authorization_server.origin: "https://as.bound.example",
            bound_demo.resources.origin: "https://mcp.bound.example",
        }
        shutil.rmtree(destination, ignore_errors=True)
        for path in sorted(home.rglob("*.json")):
            target = destination / path.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(with_hosts(path.read_text(encoding="utf-8"), hosts), encoding="utf-8")
        (destination / "config.yaml").write_text(CONFIG, encoding="utf-8")


def with_hosts(text: str, hosts: dict[str, str]) -> str:
    """Replace each loopback origin, even if it is percent-encoded inside a URL."""
    for origin, host in hosts.items():
        text = text.replace(origin, host).replace(quote(origin, safe=""), quote(host, safe=""))
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]))

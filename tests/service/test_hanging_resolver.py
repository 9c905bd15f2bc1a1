"""If the name resolver never answers, programs still keep their time limits and end on Ctrl-C and at exit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.threads import run_in_own_thread
from hermes_mcp_auth_remote.values import Origin, Server
from tests.consent_form import approve
from tests.http.fake_dns import patch_dns
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import TERMINAL, log_in, read_credential_files, server_of

pytestmark = pytest.mark.slow

# Python imports this module at startup. Its resolver reports the call, and then hangs for an hour.
SITECUSTOMIZE = """
import os, socket, time

def getaddrinfo(host, *_, **__):
    os.write(2, b"asked\\n")
    open("asked", "w").close()
    time.sleep(3600)

socket.getaddrinfo = getaddrinfo
"""

LIMIT = """
import asyncio
from hermes_mcp_auth_remote.errors import TimedOut
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.wire import get_json
from hermes_mcp_auth_remote.values import Server

def exchange():
    yield get_json("https://dead.example/", "step")

async def main():
    try:
        await run_exchange(exchange(), Server("s", "https://dead.example/mcp"), response_seconds=0.1)
    except TimedOut as error:
        print(error, flush=True)

asyncio.run(main())
print("over", flush=True)
"""

USABLE_TOKEN = """
import asyncio, os
from pathlib import Path
from hermes_mcp_auth_remote import AuthService, Server
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Secret

home, url, issuer = Path(os.environ["HERMES_HOME"]), "https://dead.example/mcp", "https://auth.example"
tokens = Tokens(Secret("access"), Secret("refresh"), expires_at=5600.0, obtained_at=2000.0)
known = AuthorizationServer(issuer, f"{issuer}/authorize", f"{issuer}/token")
binding = Binding("notes", url, issuer, "client")
FileStore(home).save_login(CredentialKey("notes"), Credentials(tokens, Client("client"), known, binding))
now = 2000.0
session = AuthService(home, clock=lambda: now).session(Server("notes", url))

async def main():
    global now
    print(await session.header(), flush=True)
    # The token is due for a refresh, and usable for a while.
    now += 3560.0
    print(await session.header(), flush=True)

asyncio.run(main())
while not os.path.exists("asked"):
    pass
print("over", flush=True)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment variables of a program whose resolver hangs."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    inherited = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    root = Path(__file__).resolve().parents[2]
    home = str(tmp_path / "hermes")
    return inherited | {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}",
        "HERMES_HOME": home,
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
    }


@contextmanager
def run_program(environ: dict[str, str], *command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=environ["HOME"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_lookup(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line == "asked\n":
            return
    raise AssertionError("the program did not call the resolver")


@covers("look-up-abandoned")
def test_a_request_ends_at_its_time_limit_and_the_program_ends_after_it(environ: dict[str, str]) -> None:
    with run_program(environ, "-c", LIMIT) as process:
        out, err = process.communicate(timeout=60)
    assert out == "dead.example did not respond to the step in time.\nover\n"
    assert (process.returncode, err) == (0, "asked\n")


@covers("look-up-abandoned")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_login_at_an_unresolvable_name_ends_on_ctrl_c(
    environ: dict[str, str], number: signal.Signals
) -> None:
    command = ("-m", "hermes_mcp_auth_remote.cli", "login", "--url", "https://dead.example/mcp")
    with run_program(environ, *command) as process:
        wait_for_lookup(process)
        process.send_signal(number)
        code = process.wait(60)
    assert code == 128 + number


@covers("look-up-abandoned")
@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_a_bot_whose_platform_name_does_not_resolve_ends_on_ctrl_c(
    environ: dict[str, str], platform: str
) -> None:
    """The platform's library looks the name up in the event loop's default executor."""
    environ |= {"TELEGRAM_BOT_TOKEN": "123456789:AAa-token", "DISCORD_BOT_TOKEN": "a.discord.token"}
    arguments = ("serve", f"--{platform}", "--allow", "7")
    with run_program(environ, "-m", "hermes_mcp_auth_remote.cli", *arguments) as process:
        wait_for_lookup(process)
        process.send_signal(signal.SIGINT)
        # The library may first report why it could not connect.
        assert process.wait(60) in {0, 7, 130}


@covers("look-up-abandoned")
def test_a_program_with_a_usable_token_ends_while_a_refresh_waits_for_a_name(environ: dict[str, str]) -> None:
    with run_program(environ, "-c", USABLE_TOKEN) as process:
        out, _ = process.communicate(timeout=100)
    assert (out, process.returncode) == ("Bearer access\nBearer access\nover\n", 0)


@covers("look-up-abandoned")
def test_logins_at_an_unresolvable_name_do_not_delay_a_login_at_another_server(
    demo: Demo, tmp_path: Path
) -> None:
    """Twelve logins hang at one server. A login at another server is stored without delay."""
    service = AuthService(tmp_path)

    async def main() -> list[object]:
        hostile = [
            asyncio.create_task(
                service.start_login(Server(f"dead{number}", "https://dead.example/mcp"), TERMINAL)
            )
            for number in range(12)
        ]
        await asyncio.to_thread(names.wait_for_queries, 1)
        async with asyncio.timeout(30):
            await log_in(service, server_of(demo))
        assert not any(task.done() for task in hostile)
        for task in hostile:
            task.cancel()
        return await asyncio.gather(*hostile, return_exceptions=True)

    with patch_dns() as names:
        outcomes = asyncio.run(main())
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    assert "notes.json" in read_credential_files(tmp_path)


class _RefusingExecutor(ThreadPoolExecutor):
    """A default executor that refuses work."""

    def submit(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("the service used the default executor")


@covers("file-work")
def test_a_login_and_a_call_do_not_use_the_default_executor(demo: Demo, tmp_path: Path) -> None:
    service, server = AuthService(tmp_path), server_of(demo)

    async def main() -> str:
        asyncio.get_running_loop().set_default_executor(_RefusingExecutor(1))
        login = await service.start_login(server, TERMINAL)
        answer = await run_in_own_thread(approve, login.authorization_url)
        await service.complete_login(login.id, answer, TERMINAL)
        assert [stored_login.id for stored_login in await service.logins()] == [login.id]
        header = await service.session(server).header()
        await service.logout(server)
        return header

    with patch_dns():
        assert asyncio.run(main()).startswith("Bearer ")


@covers("file-work")
def test_logins_that_wait_for_a_name_do_not_block_the_file_work_of_a_bot(tmp_path: Path) -> None:
    """More logins hang than the default executor has threads. Meanwhile, a bot reads its logins."""
    service = AuthService(tmp_path)
    dead = Server("dead", "https://dead.example/mcp")

    async def main() -> object:
        # A default executor with one thread. Our look-ups and file work must not use it.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        people = [Origin("telegram", chat_id=str(number), user_id=str(number)) for number in range(8)]
        waiting = [asyncio.create_task(service.start_login(dead, person)) for person in people]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(20):
            read = await service.logins()
            # Work of other libraries in the default executor also continues.
            assert await asyncio.to_thread(lambda: 1) == 1
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return read

    with patch_dns():
        assert asyncio.run(main()) == []

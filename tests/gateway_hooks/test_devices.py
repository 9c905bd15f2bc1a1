"""Device codes in a chat: the prompt, its end, the switch of the flow, a new code and the QR code."""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image

from gateway_hooks.dialog.rendering import MAX_QR_BYTES
from gateway_hooks.dialog.servers import StaticServers
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server, ServerOptions
from tests import tripwire
from tests.browserless import approve, approve_device, deny_device
from tests.gateway_hooks.given import Person, Talk, servers_of, without_secrets
from tests.gateway_hooks.test_login import compare
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def going() -> Iterator[Demo]:
    # Use the real clock: the polls use it.
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(going: Demo) -> Iterator[Demo]:
    going.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    going.authorization_server.clear_faults()
    going.authorization_server.requests.clear()
    tripwire.guard(going.authorization_server.minted_secrets)
    yield going
    going.authorization_server.clear_faults()


@pytest.fixture
def talk(tmp_path: Path, demo: Demo, runner: asyncio.Runner) -> Talk:
    return Talk(runner, AuthService(tmp_path), servers_of(demo), time.time)


@pytest.fixture
def ada(talk: Talk) -> Person:
    return talk.person("ada")


def code_of(talk: Talk) -> DeviceAuthorization:
    code = talk.login.device_authorization
    assert code is not None
    return code


def page_of(talk: Talk) -> str:
    page = code_of(talk).verification_uri_complete
    assert page is not None
    return page


def decoded(person: Person) -> list[str]:
    """Decode each QR code in the room."""
    found: list[str] = []
    for message in person.room.messages.values():
        if message.png:
            with Image.open(io.BytesIO(message.png)) as image:
                found += [each.text for each in zxingcpp.read_barcodes(image.convert("L"))]
    return found


@covers("device-screen", "chat-prompt")
def test_a_code_that_is_approved_elsewhere_ends_the_login_by_itself(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    login = talk.login
    begun = without_secrets(ada.reads(), login)
    page = page_of(talk)
    approve_device(page)
    talk.until(lambda: ada.sees() == ["notes: connected"])
    ended = without_secrets(ada.reads(), login)
    compare("chat_device", re.sub(r"\b\d\d:\d\d\b", "<time>", f"{begun}\n\n--------\n\n{ended}"))
    assert page not in ended


def test_a_code_that_is_denied_elsewhere(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    deny_device(page_of(talk))
    talk.until(lambda: ada.sees() == ["notes: not connected"])
    assert "denied" in ada.reads()


@covers("device-switch", "chat-tidy")
def test_from_a_code_to_pasting_and_back(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    first = code_of(talk)
    ada.presses("QR code")
    assert decoded(ada) == [page_of(talk)]
    ada.presses("Paste instead")
    # The pictures and texts of the code are deleted with it.
    assert decoded(ada) == []
    assert first.user_code not in ada.reads()
    assert talk.login.device_authorization is None
    url = talk.login.authorization_url
    ada.presses("QR code")
    assert decoded(ada) == [url]
    ada.presses("Use a code instead")
    assert code_of(talk).user_code != first.user_code
    ada.presses("Paste instead")
    answer = approve(talk.login.authorization_url)
    ada.pastes(answer)
    assert ada.sees() == ["notes: connected"]


@covers("device-switch")
def test_a_new_code_takes_the_place_of_the_old_one(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    first = code_of(talk)
    ada.presses("New code")
    second = code_of(talk)
    assert first.user_code not in ada.reads()
    assert ada.last.code == second.user_code
    approve_device(page_of(talk))
    talk.until(lambda: ada.sees() == ["notes: connected"])


def test_a_code_that_cannot_be_had_leaves_the_login_as_it_was(ada: Person, talk: Talk, demo: Demo) -> None:
    ada.says("/connect notes")
    first = code_of(talk)
    demo.authorization_server.fail_next("device_authorization", status=503, times=None)
    ada.presses("New code")
    assert code_of(talk) == first
    assert ada.sees() == ["Connect notes", "Connect notes"]
    assert ada.last.tone == "bad"
    approve_device(page_of(talk))
    talk.until(lambda: ada.sees() == ["notes: connected"])


@covers("chat-survives")
def test_a_code_is_waited_for_after_a_restart(
    ada: Person, talk: Talk, tmp_path: Path, demo: Demo, runner: asyncio.Runner
) -> None:
    ada.says("/connect notes")
    later = Talk(runner, AuthService(tmp_path), servers_of(demo), time.time, place=talk.place)
    page = page_of(talk)

    async def gone() -> None:
        board = talk.desk.prompt_messages
        for task in (*board._update_tasks.values(), *board._poll_tasks.values()):
            task.cancel()
        await asyncio.gather(*board._poll_tasks.values(), return_exceptions=True)

    talk.run(gone())
    approve_device(page)
    later.until(lambda: ada.sees() == ["notes: connected"])


@covers("device-off")
def test_where_codes_are_turned_off_none_is_offered(
    tmp_path: Path, demo: Demo, runner: asyncio.Runner
) -> None:
    service = AuthService(tmp_path, device_platforms=())
    ada = Talk(runner, service, servers_of(demo), time.time).person("ada")
    ada.says("/connect notes")
    assert ada.last.code == ""
    assert [button.label for row in ada.last.buttons for button in row] == ["QR code", "Cancel"]


@covers("qr-fits")
def test_a_picture_that_no_camera_could_read_is_not_sent_and_that_is_said(
    tmp_path: Path, demo: Demo, runner: asyncio.Runner
) -> None:
    demo.authorization_server.change_behaviour(with_device=False)
    wide = ServerOptions(scope=frozenset(f"mcp:scope-number-{n:03}" for n in range(60)))
    servers = StaticServers([Server("notes", demo.ping_url, wide)])
    talk = Talk(runner, AuthService(tmp_path), servers, time.time)
    ada = talk.person("ada")
    ada.says("/connect notes")
    assert len(talk.login.authorization_url.encode()) > MAX_QR_BYTES
    ada.presses("QR code")
    assert "The address is too long for a QR code" in ada.reads()
    assert decoded(ada) == []
    ada.presses("Cancel")
    assert ada.sees() == ["notes: not connected"]


@covers("qr-fits")
def test_the_densest_picture_that_is_sent_can_be_read() -> None:
    from hermes_mcp_auth_remote.qr import render_png

    text = "https://as.example/authorize?" + "x" * (MAX_QR_BYTES - 29)
    drawn = render_png(text)
    assert drawn is not None
    with Image.open(io.BytesIO(drawn)) as image:
        (found,) = zxingcpp.read_barcodes(image.convert("L"))
    assert found.text == text

"""Logins from the command to the connection, as Discord shows them."""

from __future__ import annotations

import io

import pytest
import zxingcpp
from PIL import Image

from gateway_hooks.dialog.servers import StaticServers
from hermes_mcp_auth_remote.values import Server, ServerOptions
from tests.browserless import approve_device
from tests.gateway_hooks.discord.given import CANCEL, PASTE, QR, Scene, compare
from tests.parts.discord_api import Message
from tests.requirements import covers

pytestmark = pytest.mark.slow


def scanned(scene: Scene, message: Message) -> str:
    [found] = zxingcpp.read_barcodes(Image.open(io.BytesIO(scene.api.file(message))))
    return str(found.text)


@covers("discord-story", "discord-window")
def test_a_login_by_pasting_into_a_window(scene: Scene) -> None:
    api, ada, seen = scene.api, scene.ada, list[str]()
    with scene.bot():
        prompt = scene.connect(ada)
        login = scene.login()
        assert prompt.ephemeral
        assert prompt.buttons[0]["url"] == login.authorization_url
        seen.append(scene.seen(ada))
        api.press(ada, prompt, QR)
        picture = scene.until_seen(scene.channel, "Scan this", ada)
        assert picture.ephemeral
        assert scanned(scene, picture) == login.authorization_url
        seen.append(scene.seen(ada))
        answer = scene.approve()
        window = api.modal(api.press(ada, prompt, PASTE))
        seen.append(scene.seen(ada))
        api.submit(ada, window, {"The address your browser ended on": answer})
        scene.until_shows(prompt, "notes: connected")
        api.wait(lambda: api.fresh(picture).deleted)
        seen.append(scene.seen(ada))
    assert not api.standing(answer)
    assert [where for where in api.find(answer) if where != "gateway INTERACTION_CREATE"] == []
    assert scene.store.connection(scene.server) is not None
    scene.check_private(login)
    compare("discord_paste", "\n--------\n\n".join(seen))


@covers("discord-story", "discord-alone")
def test_a_login_by_a_code_ends_by_itself(scene: Scene) -> None:
    api, ada, seen = scene.api, scene.ada, list[str]()
    scene.demo.authorization_server.change_behaviour(with_device=True)
    with scene.bot():
        prompt = scene.connect(ada)
        login = scene.login()
        assert login.device_authorization is not None
        assert f"```\n{login.device_authorization.user_code}\n```" in prompt.text
        seen.append(scene.seen(ada))
        api.press(ada, prompt, QR)
        picture = scene.until_seen(scene.channel, "Scan this", ada)
        approve_device(scanned(scene, picture))
        scene.clock.now += 6
        scene.until_shows(prompt, "notes: connected")
        api.wait(lambda: api.fresh(picture).deleted)
        seen.append(scene.seen(ada))
    scene.check_private(login)
    compare("discord_device", "\n--------\n\n".join(seen))


@covers("discord-story")
def test_a_login_goes_on_by_a_code_and_is_cancelled(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    scene.demo.authorization_server.change_behaviour(with_device=True)
    with scene.bot():
        prompt = scene.connect(ada)
        api.press(ada, prompt, "Paste instead")
        prompt = scene.until_shows(prompt, PASTE)
        api.press(ada, prompt, "Use a code instead")
        prompt = scene.until_shows(prompt, "enter this code")
        api.press(ada, prompt, CANCEL)
        prompt = scene.until_shows(prompt, "Cancelled")
        api.press(ada, prompt, "Try again")
        scene.until_shows(prompt, "Connect notes")
        assert len(api.messages(scene.channel, seen_by=ada)) == 1
    assert len(scene.store.waiting_logins()) == 1


@covers("discord-story")
def test_what_is_connected_is_listed_and_disconnected(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot("notes", "other"):
        prompt = scene.connect(ada)
        scene.paste(ada, prompt, scene.approve())
        scene.until_shows(prompt, "connected")
        listed = api.answer(api.slash(ada, scene.channel, "connections"))
        assert "notes:** `connected as ada@example.com" in listed.text
        assert listed.labels == ["Disconnect notes", "Connect other"]
        seen = [scene.seen(ada)]
        api.press(ada, listed, "Disconnect notes")
        listed = scene.until_shows(listed, "Disconnect notes?")
        api.press(ada, listed, "Yes, disconnect")
        scene.until_shows(listed, "notes: disconnected")
        sure = api.answer(api.slash(ada, scene.channel, "disconnect", server="other"))
        assert "Disconnect other?" in sure.text
        api.press(ada, sure, "Keep it")
        scene.until_shows(sure, "other stays connected")
        seen.append(scene.seen(ada))
    compare("discord_connections", "\n--------\n\n".join(seen))
    assert scene.store.connection(scene.server) is None


def test_a_server_is_chosen_from_a_list(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot(*(f"server{number}" for number in range(30))):
        assert api.autocomplete(ada, scene.channel, "connect", "server", "r1")[:2] == ["server1", "server10"]
        assert len(api.autocomplete(ada, scene.channel, "connect", "server", "")) == 25
        choice = api.answer(api.slash(ada, scene.channel, "connect"))
        assert len(choice.labels) == 20
        api.press(ada, choice, "server7")
        scene.until_shows(choice, "Connect server7")


@covers("discord-story")
def test_a_login_that_is_not_finished_says_so(scene: Scene) -> None:
    with scene.bot():
        prompt = scene.connect(scene.ada)
        scene.clock.now += 601
        scene.until_shows(prompt, "not finished in time")


def test_a_direct_chat_gets_plain_messages_that_last(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    home = api.dm(ada)
    with scene.bot():
        prompt = scene.connect(ada, home)
        assert not prompt.ephemeral
        answer = scene.approve()
    with scene.bot():
        scene.paste(ada, api.fresh(prompt), answer)
        scene.until_shows(prompt, "notes: connected")
        assert len(api.messages(home, seen_by=ada)) == 1


@pytest.mark.parametrize("length", [600, 4000])
@covers("discord-limits")
def test_a_long_address_stands_in_the_message_or_comes_as_a_file(scene: Scene, length: int) -> None:
    api, ada = scene.api, scene.ada
    options = ServerOptions(authorize_params={"claims": "x" * length})
    with scene.bot(servers=StaticServers([Server("notes", scene.demo.ping_url, options)])):
        prompt = scene.connect(ada)
        url = scene.login().authorization_url
        assert "Open the page" not in prompt.labels
        assert (f"<{url}>" in prompt.text) is (length < 3000)
        assert [api.file(prompt, one["filename"]).decode() for one in prompt.attachments] == [url][
            length < 3000 :
        ]
        api.press(ada, prompt, QR)
        if length > 1000:
            scene.until_seen(scene.channel, "too long for a QR code", ada)
        scene.paste(ada, prompt, scene.approve())
        assert scene.until_shows(prompt, "notes: connected").attachments == []

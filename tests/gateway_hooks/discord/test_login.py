"""Logins from the command to the connection, as Discord shows them."""

from __future__ import annotations

import pytest

from gateway_hooks.dialog.servers import StaticServers
from hermes_mcp_auth_remote.values import Server, ServerOptions
from tests.consent_form import approve_device
from tests.gateway_hooks.discord.environment import (
    CANCEL_BUTTON,
    PASTE_BUTTON,
    QR_BUTTON,
    DiscordEnvironment,
)
from tests.qr_codes import scan_qr_code
from tests.requirements import covers
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow


@covers("discord-story", "discord-window")
def test_login_with_answer_in_modal(env: DiscordEnvironment) -> None:
    api, ada, transcripts = env.api, env.ada, list[str]()
    with env.running_bot():
        prompt = env.request_prompt(ada)
        login = env.waiting_login()
        assert prompt.ephemeral
        assert prompt.buttons[0]["url"] == login.authorization_url
        transcripts.append(env.visible_transcript(ada))
        api.press(ada, prompt, QR_BUTTON)
        picture = env.wait_for_message(env.channel, "Scan this", ada)
        assert picture.ephemeral
        assert scan_qr_code(env.api.attachment_content(picture)) == login.authorization_url
        transcripts.append(env.visible_transcript(ada))
        answer = env.approve_login()
        modal = api.wait_for_modal(api.press(ada, prompt, PASTE_BUTTON))
        transcripts.append(env.visible_transcript(ada))
        api.submit(ada, modal, {"The address your browser ended on": answer})
        env.wait_for_text(prompt, "notes: connected")
        api.wait(lambda: api.current(picture).deleted)
        transcripts.append(env.visible_transcript(ada))
    assert not api.messages_containing(answer)
    assert [source for source in api.find(answer) if source != "gateway INTERACTION_CREATE"] == []
    assert env.service.blocking.connection(env.server) is not None
    env.check_private(login)
    compare_transcript("discord_paste", "\n--------\n\n".join(transcripts))


@covers("discord-story", "discord-alone")
def test_device_login_ends_without_answer(env: DiscordEnvironment) -> None:
    api, ada, transcripts = env.api, env.ada, list[str]()
    env.demo.authorization_server.change_behaviour(with_device=True)
    with env.running_bot():
        prompt = env.request_prompt(ada)
        login = env.waiting_login()
        assert login.device_authorization is not None
        assert f"```\n{login.device_authorization.user_code}\n```" in prompt.text
        transcripts.append(env.visible_transcript(ada))
        api.press(ada, prompt, QR_BUTTON)
        picture = env.wait_for_message(env.channel, "Scan this", ada)
        approve_device(scan_qr_code(env.api.attachment_content(picture)))
        env.clock.now += 6
        env.wait_for_text(prompt, "notes: connected")
        api.wait(lambda: api.current(picture).deleted)
        transcripts.append(env.visible_transcript(ada))
    env.check_private(login)
    compare_transcript("discord_device", "\n--------\n\n".join(transcripts))


@covers("discord-story")
def test_login_switches_flow_and_is_cancelled(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    env.demo.authorization_server.change_behaviour(with_device=True)
    with env.running_bot():
        prompt = env.request_prompt(ada)
        api.press(ada, prompt, "Paste instead")
        prompt = env.wait_for_text(prompt, PASTE_BUTTON)
        api.press(ada, prompt, "Use a code instead")
        prompt = env.wait_for_text(prompt, "Enter this code")
        api.press(ada, prompt, CANCEL_BUTTON)
        prompt = env.wait_for_text(prompt, "Cancelled")
        api.press(ada, prompt, "Try again")
        env.wait_for_text(prompt, "Connect notes")
        assert len(api.messages(env.channel, seen_by=ada)) == 1
    assert len(env.service.blocking.waiting_logins()) == 1


@covers("discord-story")
def test_connections_are_listed_and_disconnected(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot("notes", "other"):
        prompt = env.request_prompt(ada)
        env.submit_answer(ada, prompt, env.approve_login())
        env.wait_for_text(prompt, "notes: connected")
        connections_message = api.wait_for_response(api.slash(ada, env.channel, "connections"))
        assert "notes:** `connected as ada@example.com" in connections_message.text
        assert connections_message.labels == ["Disconnect notes", "Connect other"]
        transcripts = [env.visible_transcript(ada)]
        api.press(ada, connections_message, "Disconnect notes")
        connections_message = env.wait_for_text(connections_message, "Disconnect notes?")
        api.press(ada, connections_message, "Keep it")
        env.wait_for_text(connections_message, "notes stays connected")
        confirmation = api.wait_for_response(api.slash(ada, env.channel, "disconnect", server="notes"))
        assert "Disconnect notes?" in confirmation.text
        api.press(ada, confirmation, "Yes, disconnect")
        env.wait_for_text(confirmation, "notes: disconnected")
        other = api.wait_for_response(api.slash(ada, env.channel, "disconnect", server="other"))
        assert "other: not connected\nThere is nothing to disconnect." in other.text
        transcripts.append(env.visible_transcript(ada))
    compare_transcript("discord_connections", "\n--------\n\n".join(transcripts))
    assert env.service.blocking.connection(env.server) is None


def test_server_is_chosen_from_list(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot(*(f"server{number}" for number in range(30))):
        assert api.autocomplete(ada, env.channel, "connect", "server", "r1")[:2] == ["server1", "server10"]
        assert len(api.autocomplete(ada, env.channel, "connect", "server", "")) == 25
        choice = api.wait_for_response(api.slash(ada, env.channel, "connect"))
        assert len(choice.labels) == 20
        api.press(ada, choice, "server7")
        env.wait_for_text(choice, "Connect server7")


@covers("discord-story")
def test_expired_login_is_shown(env: DiscordEnvironment) -> None:
    with env.running_bot():
        prompt = env.request_prompt(env.ada)
        env.clock.now += 601
        env.wait_for_text(prompt, "not finished in time")


def test_direct_message_prompt_is_not_ephemeral(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    direct_channel = api.dm(ada)
    with env.running_bot():
        prompt = env.request_prompt(ada, direct_channel)
        assert not prompt.ephemeral
        answer = env.approve_login()
    with env.running_bot():
        env.submit_answer(ada, api.current(prompt), answer)
        env.wait_for_text(prompt, "notes: connected")
        assert len(api.messages(direct_channel, seen_by=ada)) == 1


@pytest.mark.parametrize("length", [600, 4000])
@covers("discord-limits")
def test_long_url_is_in_message_or_file(env: DiscordEnvironment, length: int) -> None:
    api, ada = env.api, env.ada
    options = ServerOptions(authorize_params={"claims": "x" * length})
    with env.running_bot(servers=StaticServers([Server("notes", env.demo.ping_url, options)])):
        prompt = env.request_prompt(ada)
        url = env.waiting_login().authorization_url
        assert "Open the page" not in prompt.labels
        assert (f"<{url}>" in prompt.text) is (length < 3000)
        assert [
            api.attachment_content(prompt, attachment["filename"]).decode()
            for attachment in prompt.attachments
        ] == [url][length < 3000 :]
        api.press(ada, prompt, QR_BUTTON)
        if length > 1000:
            env.wait_for_message(env.channel, "too long for a QR code", ada)
        env.submit_answer(ada, prompt, env.approve_login())
        assert env.wait_for_text(prompt, "notes: connected").attachments == []

"""The bot shows a login only to its user, in the channel or in a direct message."""

from __future__ import annotations

import asyncio

import discord
import pytest

from gateway_hooks.dialog.cards import encode_action
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import tag_of
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import Origin
from tests.consent_form import approve_device
from tests.gateway_hooks.discord.environment import (
    ANSWER_FIELD,
    PASTE_BUTTON,
    QR_BUTTON,
    DiscordEnvironment,
    RunningBot,
)
from tests.parts.discord_api import NotOffered
from tests.requirements import covers
from tests.service.helpers import wait_until
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow

CONTINUE_BUTTON = ENGLISH.continue_here_button


def approve_device_login(login: Login) -> None:
    assert login.device_authorization is not None
    approve_device(login.device_authorization.verification_uri_complete or "")


@covers("discord-unseen")
def test_only_user_sees_prompt_and_qr_code(env: DiscordEnvironment) -> None:
    api = env.api
    with env.running_bot():
        prompt = env.request_prompt(env.ada)
        api.press(env.ada, prompt, QR_BUTTON)
        picture = env.wait_for_message(env.channel, "Scan this", env.ada)
        assert api.messages(env.channel, seen_by=env.bob) == []
        for message in (prompt, picture):
            assert message.ephemeral
            with pytest.raises(NotOffered):
                api.press(env.bob, message, "mcp:cancel:" + env.waiting_login().id)
        # Two users can log in at the same time.
        bob_prompt = env.request_prompt(env.bob)
        assert bob_prompt.ephemeral
        assert len({login.origin.user_id for login in env.service.blocking.waiting_logins()}) == 2


@covers("discord-elsewhere", "chat-asks")
def test_call_prompts_user_in_direct_message(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot() as running_bot:
        call = running_bot.start(running_bot.call_server(ada, env.channel, env.demo.ping_url, env.guild))
        prompt = env.wait_for_message(api.dm(ada), "Connect notes", ada)
        login = env.waiting_login()
        notice = env.wait_for_message(env.channel, ENGLISH.wrote_privately, env.bob)
        assert notice.labels == []
        env.submit_answer(ada, prompt, env.approve_login())
        assert call.result(20) == 200
        # The call came from a channel, so the bot reports the success in a new direct message.
        env.wait_for_message(api.dm(ada), "notes: connected", ada)
    env.check_private(login)


@covers("discord-elsewhere", "discord-unseen")
def test_button_in_channel_works_for_its_user_if_direct_messages_are_closed(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    api.set_dms_open(ada, dms_open=False)
    with env.running_bot() as running_bot:
        call = running_bot.start(running_bot.call_server(ada, env.channel, env.demo.ping_url, env.guild))
        invitation = env.wait_for_message(env.channel, ENGLISH.continue_here, env.bob)
        login = env.waiting_login()
        bob_press = api.press(env.bob, invitation, CONTINUE_BUTTON)
        env.wait_for_message(env.channel, ENGLISH.not_your_login, env.bob)
        api.press(env.eve, invitation, CONTINUE_BUTTON)
        env.wait_for_message(env.channel, ENGLISH.unknown_user_title, env.eve)
        assert bob_press.original is None or bob_press.original.id == invitation.id
        api.press(ada, invitation, CONTINUE_BUTTON)
        prompt = env.wait_for_message(env.channel, ENGLISH.login_host_label, ada)
        assert prompt.ephemeral
        for other_user in (env.bob, env.eve):
            assert prompt.id not in [message.id for message in api.messages(env.channel, seen_by=other_user)]
        transcripts = [env.visible_transcript(user) for user in (env.bob, env.eve, ada)]
        # The message that all users see does not change.
        assert api.current(invitation).text == invitation.text
        env.submit_answer(ada, prompt, env.approve_login())
        assert call.result(20) == 200
        env.wait_for_text(prompt, "notes: connected")
        api.press(ada, invitation, CONTINUE_BUTTON)
        env.wait_for_message(env.channel, ENGLISH.login_over, ada)
        assert api.current(invitation).text == invitation.text
    env.check_private(login)
    compare_transcript("discord_closed", "\n--------\n\n".join(transcripts))


@covers("discord-unseen", "chat-private")
def test_press_on_public_message_is_answered_privately(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada

    async def post(running_bot: RunningBot) -> None:
        view = discord.ui.View(timeout=None)
        view.add_item(discord.ui.Button(label="Connect", custom_id=encode_action("connect", tag_of("notes"))))
        messageable = running_bot.bot.get_partial_messageable(int(env.channel.id))
        await messageable.send("Everybody may connect:", view=view)

    with env.running_bot() as running:
        running.call(post(running))
        posted = env.wait_for_message(env.channel, "Everybody may connect", env.bob)
        api.press(ada, posted, "Connect")
        prompt = env.wait_for_message(env.channel, "Connect notes", ada)
        assert prompt.id != posted.id
        assert prompt.ephemeral
        assert api.current(posted).text == posted.text
        # The bot does not try to edit the message.
        assert [call for call in api.calls if call.method == "PATCH"] == []
    env.check_private(env.waiting_login())


@covers("discord-elsewhere")
def test_call_raises_if_user_cannot_be_prompted(env: DiscordEnvironment) -> None:
    env.api.set_dms_open(env.ada, dms_open=False)
    with env.running_bot() as running_bot, pytest.raises(AuthorizationRequired):
        running_bot.call(running_bot.call_server(env.ada, None, env.demo.ping_url, env.guild))


@covers("discord-elsewhere")
def test_direct_message_shows_outcome_after_token_expires(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    env.demo.authorization_server.change_behaviour(with_device=True, device_seconds=3600)
    with env.running_bot():
        prompt = env.request_prompt(ada)
        login = env.waiting_login()
        env.clock.now += 901
        approve_device_login(login)
        env.clock.now += 6
        # The prompt counts down by itself. When the login ends, the bot finds that it can no longer edit it.
        env.wait_for_message(api.dm(ada), "notes: connected", ada)
        assert len(api.messages(api.dm(ada), seen_by=ada)) == 1
        assert "Connect notes" in api.current(prompt).text


@covers("discord-elsewhere")
def test_press_extends_time_in_which_prompt_can_be_edited(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    env.demo.authorization_server.change_behaviour(with_device=True, device_seconds=3600)
    with env.running_bot():
        prompt = env.request_prompt(ada)
        login = env.waiting_login()
        env.clock.now += 600
        api.press(ada, prompt, QR_BUTTON)
        picture = env.wait_for_message(env.channel, "Scan this", ada)
        env.clock.now += 400
        approve_device_login(login)
        env.wait_for_text(prompt, "notes: connected")
        api.wait(lambda: api.current(picture).deleted)
        assert api.messages(api.dm(ada), seen_by=ada) == []


@covers("discord-restart")
def test_new_process_answers_prompt_after_restart(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        prompt = env.request_prompt(ada)
        answer = env.approve_login()
    with env.running_bot():
        env.submit_answer(ada, prompt, answer)
        # The interaction of the modal reaches the prompt that another process sent.
        env.wait_for_text(prompt, "notes: connected")
    assert api.messages(api.dm(ada), seen_by=ada) == []
    assert api.command_changes == 3


@covers("discord-restart")
def test_new_process_accepts_modal_opened_before_restart(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        prompt = env.request_prompt(ada)
        answer = env.approve_login()
        modal = api.wait_for_modal(api.press(ada, prompt, PASTE_BUTTON))
    with env.running_bot():
        api.submit(ada, modal, {ANSWER_FIELD: answer})
        env.wait_for_text(prompt, "notes: connected")


@covers("discord-restart", "discord-elsewhere")
def test_login_that_ended_without_bot_is_shown_in_direct_message(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    env.demo.authorization_server.change_behaviour(with_device=True)
    with env.running_bot():
        env.request_prompt(ada)
        approve_device_login(env.waiting_login())
    env.clock.now += 6
    with env.running_bot():
        env.wait_for_message(api.dm(ada), "notes: connected", ada)
    assert env.service.blocking.connection(env.server) is not None


@covers("discord-elsewhere", "begun-elsewhere")
def test_login_of_another_process_is_finished_in_direct_message(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot() as running_bot:
        login = running_bot.call(env.service.start_login(env.server, Origin("discord", user_id=ada.id)))
        env.logins_by_id[login.id] = login
        prompt = env.wait_for_message(api.dm(ada), "Connect notes", ada)
        env.submit_answer(ada, prompt, env.approve_login())
        env.wait_for_message(api.dm(ada), "notes: connected", ada)


@pytest.mark.parametrize("user", ["nobody", "1", "²", "18446744073709551616"])
def test_login_for_invalid_user_id_is_cancelled(env: DiscordEnvironment, user: str) -> None:
    env.policy = AllowList(users=frozenset({user}))
    with env.running_bot() as running_bot:
        login = running_bot.call(env.service.start_login(env.server, Origin("discord", user_id=user)))
        wait_until(lambda: env.service.blocking.login(login.id).status == "cancelled")


@covers("discord-restart")
@pytest.mark.parametrize("dms_open", [False, True])
def test_ephemeral_prompt_that_a_restarted_bot_cannot_edit_becomes_the_outcome_when_pressed(
    env: DiscordEnvironment, *, dms_open: bool
) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        prompt = env.request_prompt(ada)
        login, answer = env.waiting_login(), env.approve_login()
    assert prompt.ephemeral
    asyncio.run(env.service.complete_login(login.id, answer, Origin("terminal")))
    api.set_dms_open(ada, dms_open=dms_open)
    with env.running_bot():
        if dms_open:
            env.wait_for_message(api.dm(ada), "notes: connected", ada)
        wait_until(lambda: env.service.blocking.login(login.id).message_ids == ())
        assert "Connect notes" in api.current(prompt).text
        # No form opens for a login that is over.
        api.press(ada, prompt, PASTE_BUTTON)
        env.wait_for_text(prompt, "notes: connected")
        env.wait_for_message(env.channel, ENGLISH.login_over, ada)
        assert login.authorization_url not in str(api.current(prompt))

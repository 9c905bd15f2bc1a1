"""The bot shows a login only to its user, in the channel or in a direct message."""

from __future__ import annotations

import discord
import pytest

from gateway_hooks.dialog.cards import encode_action
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import tag_of
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import Origin
from tests.browserless import approve_device
from tests.gateway_hooks.discord.given import FIELD, PASTE, QR, Running, Scene, compare
from tests.parts.discord_api import NotOffered
from tests.requirements import covers
from tests.service.given import eventually

pytestmark = pytest.mark.slow

OPEN = ENGLISH.continue_here_button


def approve_shown(login: Login) -> None:
    assert login.device_authorization is not None
    approve_device(login.device_authorization.verification_uri_complete or "")


@covers("discord-unseen")
def test_nobody_else_sees_a_prompt_or_its_picture(scene: Scene) -> None:
    api = scene.api
    with scene.bot():
        prompt = scene.connect(scene.ada)
        api.press(scene.ada, prompt, QR)
        picture = scene.until_seen(scene.channel, "Scan this", scene.ada)
        assert api.messages(scene.channel, seen_by=scene.bob) == []
        for message in (prompt, picture):
            assert message.ephemeral
            with pytest.raises(NotOffered):
                api.press(scene.bob, message, "mcp:cancel:" + scene.login().id)
        # Two users can log in at the same time.
        other = scene.connect(scene.bob)
        assert other.ephemeral
        assert len({login.origin.user_id for login in scene.store.waiting_logins()}) == 2


@covers("discord-elsewhere", "chat-asks")
def test_a_call_asks_its_user_in_a_direct_message(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot() as running:
        call = running.start(running.ping(ada, scene.channel, scene.demo.ping_url, scene.guild))
        prompt = scene.until_seen(api.dm(ada), "Connect notes", ada)
        login = scene.login()
        said = scene.until_seen(scene.channel, ENGLISH.wrote_privately, scene.bob)
        assert said.labels == []
        scene.paste(ada, prompt, scene.approve())
        assert call.result(20) == 200
        scene.until_shows(prompt, "notes: connected")
    scene.check_private(login)


@covers("discord-elsewhere", "discord-unseen")
def test_where_direct_messages_are_closed_a_button_in_the_channel_is_for_one_person(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    api.set_dms_open(ada, dms_open=False)
    with scene.bot() as running:
        call = running.start(running.ping(ada, scene.channel, scene.demo.ping_url, scene.guild))
        invitation = scene.until_seen(scene.channel, ENGLISH.continue_here, scene.bob)
        login = scene.login()
        refused = api.press(scene.bob, invitation, OPEN)
        scene.until_seen(scene.channel, ENGLISH.not_your_login, scene.bob)
        api.press(scene.eve, invitation, OPEN)
        scene.until_seen(scene.channel, ENGLISH.unknown_user_title, scene.eve)
        assert refused.original is None or refused.original.id == invitation.id
        api.press(ada, invitation, OPEN)
        prompt = scene.until_seen(scene.channel, "Log in at".lower(), ada)
        assert prompt.ephemeral
        for other in (scene.bob, scene.eve):
            assert prompt.id not in [one.id for one in api.messages(scene.channel, seen_by=other)]
        seen = [scene.seen(user) for user in (scene.bob, scene.eve, ada)]
        # The message that all users see does not change.
        assert api.fresh(invitation).text == invitation.text
        scene.paste(ada, prompt, scene.approve())
        assert call.result(20) == 200
        scene.until_shows(prompt, "notes: connected")
        api.press(ada, invitation, OPEN)
        scene.until_seen(scene.channel, ENGLISH.login_over, ada)
        assert api.fresh(invitation).text == invitation.text
    scene.check_private(login)
    compare("discord_closed", "\n--------\n\n".join(seen))


@covers("discord-unseen", "chat-private")
def test_what_is_pressed_where_others_see_it_is_not_answered_there(scene: Scene) -> None:
    api, ada = scene.api, scene.ada

    async def post(running: Running) -> None:
        view = discord.ui.View(timeout=None)
        view.add_item(discord.ui.Button(label="Connect", custom_id=encode_action("connect", tag_of("notes"))))
        place = running.bot.get_partial_messageable(int(scene.channel.id))
        await place.send("Everybody may connect:", view=view)

    with scene.bot() as running:
        running.call(post(running))
        posted = scene.until_seen(scene.channel, "Everybody may connect", scene.bob)
        api.press(ada, posted, "Connect")
        prompt = scene.until_seen(scene.channel, "Connect notes", ada)
        assert prompt.id != posted.id
        assert prompt.ephemeral
        assert api.fresh(posted).text == posted.text
        # The bot does not try to edit it.
        assert [call for call in api.calls if call.method == "PATCH"] == []
    scene.check_private(scene.login())


@covers("discord-elsewhere")
def test_where_nobody_can_be_asked_a_call_says_so(scene: Scene) -> None:
    scene.api.set_dms_open(scene.ada, dms_open=False)
    with scene.bot() as running, pytest.raises(AuthorizationRequired):
        running.call(running.ping(scene.ada, None, scene.demo.ping_url, scene.guild))


@covers("discord-elsewhere")
def test_after_a_quarter_of_an_hour_a_direct_message_goes_on(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    scene.demo.authorization_server.change_behaviour(with_device=True, device_seconds=3600)
    with scene.bot():
        prompt = scene.connect(ada)
        login = scene.login()
        scene.clock.now += 901
        again = scene.until_seen(api.dm(ada), "Connect notes", ada)
        assert login.device_authorization is not None
        assert login.device_authorization.user_code in again.text
        approve_shown(login)
        scene.clock.now += 6
        scene.until_shows(again, "notes: connected")
        assert len(api.messages(api.dm(ada), seen_by=ada)) == 1
        assert "Connect notes" in api.fresh(prompt).text


@covers("discord-elsewhere")
def test_a_press_makes_a_message_reachable_for_another_quarter_of_an_hour(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    scene.demo.authorization_server.change_behaviour(with_device=True, device_seconds=3600)
    with scene.bot():
        prompt = scene.connect(ada)
        login = scene.login()
        scene.clock.now += 600
        api.press(ada, prompt, QR)
        picture = scene.until_seen(scene.channel, "Scan this", ada)
        scene.clock.now += 400
        approve_shown(login)
        scene.until_shows(prompt, "notes: connected")
        api.wait(lambda: api.fresh(picture).deleted)
        assert api.messages(api.dm(ada), seen_by=ada) == []


@covers("discord-restart")
def test_after_a_restart_the_prompt_is_answered_by_the_new_process(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        prompt = scene.connect(ada)
        answer = scene.approve()
    with scene.bot():
        scene.paste(ada, prompt, answer)
        # The interaction of the modal reaches the prompt that another process sent.
        scene.until_shows(prompt, "notes: connected")
    assert api.messages(api.dm(ada), seen_by=ada) == []
    assert api.syncs == 3


@covers("discord-restart")
def test_a_window_that_is_open_during_a_restart_is_taken_by_the_new_process(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        prompt = scene.connect(ada)
        answer = scene.approve()
        window = api.modal(api.press(ada, prompt, PASTE))
    with scene.bot():
        api.submit(ada, window, {FIELD: answer})
        scene.until_shows(prompt, "notes: connected")


@covers("discord-restart", "discord-elsewhere")
def test_what_ends_while_nobody_runs_is_told_in_a_direct_message(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    scene.demo.authorization_server.change_behaviour(with_device=True)
    with scene.bot():
        scene.connect(ada)
        approve_shown(scene.login())
    scene.clock.now += 6
    with scene.bot():
        scene.until_seen(api.dm(ada), "notes: connected", ada)
    assert scene.store.connection(scene.server) is not None


@covers("discord-elsewhere", "begun-elsewhere")
def test_a_login_begun_for_a_user_elsewhere_is_shown_and_finished_in_a_direct_message(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot() as running:
        login = running.call(scene.store.start_login(scene.server, Origin("discord", user_id=ada.id)))
        scene.began[login.id] = login
        prompt = scene.until_seen(api.dm(ada), "Connect notes", ada)
        scene.paste(ada, prompt, scene.approve())
        scene.until_shows(prompt, "notes: connected")


@pytest.mark.parametrize("user", ["nobody", "1", "²", "18446744073709551616"])
def test_a_login_for_no_user_of_discords_is_cancelled(scene: Scene, user: str) -> None:
    scene.policy = AllowList(users=frozenset({user}))
    with scene.bot() as running:
        login = running.call(scene.store.start_login(scene.server, Origin("discord", user_id=user)))
        eventually(lambda: scene.store.login(login.id).status == "cancelled")

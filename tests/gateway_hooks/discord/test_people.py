"""Which users may log in: ids, roles and guilds, in channels and direct messages; who owns the tokens."""

from __future__ import annotations

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList
from tests.gateway_hooks.discord.given import Scene
from tests.parts.discord_api import Channel, User
from tests.requirements import covers

pytestmark = pytest.mark.slow


def roles_of(scene: Scene, name: str) -> frozenset[str]:
    return frozenset(role.id for role in scene.guild.roles.values() if role.name == name)


@covers("discord-people", "chat-listed")
def test_a_stranger_is_told_their_id_once_and_begins_nothing(scene: Scene) -> None:
    api, eve = scene.api, scene.eve
    with scene.bot():
        said = api.answer(api.slash(eve, scene.channel, "connect", server="notes"))
        assert said.ephemeral
        assert ENGLISH.unknown_user.format(user=eve.id) in said.text
        assert api.autocomplete(eve, scene.channel, "connect", "server", "") == []
        again = api.slash(eve, scene.channel, "connect", server="notes")
        # The bot sends no second reply and ends the "thinking" state.
        api.wait(lambda: again.original is not None and again.original.deleted)
    assert scene.store.logins() == []


@pytest.mark.parametrize("is_direct", [True, False])
@covers("discord-people")
def test_a_role_lets_people_in_wherever_they_ask(scene: Scene, *, is_direct: bool) -> None:
    api = scene.api

    def place(user: User) -> Channel:
        return api.dm(user) if is_direct else scene.channel

    policy = AllowList(roles=roles_of(scene, "staff"), guilds=frozenset({scene.guild.id}))
    with scene.bot(policy=policy):
        assert "Connect notes" in scene.connect(scene.bob, place(scene.bob)).text
        assert ENGLISH.unknown_user_title in scene.connect(scene.ada, place(scene.ada)).text


@covers("discord-people")
def test_a_role_of_another_guild_does_not_count(scene: Scene) -> None:
    policy = AllowList(roles=roles_of(scene, "staff"), guilds=frozenset({"1"}))
    with scene.bot(policy=policy):
        for place in (scene.channel, scene.api.dm(scene.bob)):
            scene.clock.now += 3601
            assert ENGLISH.unknown_user_title in scene.connect(scene.bob, place).text


@covers("discord-people")
def test_everybody_of_a_guild_is_its_own_role(scene: Scene) -> None:
    stranger = scene.api.user("mallory")
    guild = frozenset({scene.guild.id})
    with scene.bot(policy=AllowList(roles=guild, guilds=guild)):
        assert "Connect notes" in scene.connect(scene.eve, scene.api.dm(scene.eve)).text
        assert ENGLISH.unknown_user_title in scene.connect(stranger, scene.api.dm(stranger)).text


@pytest.mark.parametrize("is_direct", [True, False])
@covers("discord-people", "chat-admins")
def test_what_all_share_is_changed_by_a_role_of_administrators(scene: Scene, *, is_direct: bool) -> None:
    policy = AllowList(users=frozenset({scene.ada.id}), admin_roles=roles_of(scene, "staff"))
    api = scene.api
    with scene.bot(policy=policy):
        for user, said in ((scene.ada, ENGLISH.admins_only), (scene.bob, "Connect notes")):
            assert said in scene.connect(user, api.dm(user) if is_direct else scene.channel).text


@covers("discord-people", "chat-owners")
def test_everybody_has_their_own_where_the_operator_says_so(scene: Scene) -> None:
    policy = AllowList(users=frozenset({scene.ada.id, scene.bob.id}), owners="per_user")
    with scene.bot(policy=policy):
        prompt = scene.connect(scene.ada)
        assert ENGLISH.token_owner_you in prompt.text
        scene.paste(scene.ada, prompt, scene.approve())
        scene.until_shows(prompt, "notes: connected")
        listed = scene.api.answer(scene.api.slash(scene.bob, scene.channel, "connections"))
        assert ENGLISH.status_not_connected in listed.text
    assert scene.store.connection(scene.server) is None
    assert scene.store.connection(scene.server, f"discord:{scene.ada.id}") is not None


@covers("discord-people")
def test_roles_are_asked_for_only_where_an_id_does_not_do_and_not_each_time(scene: Scene) -> None:
    api = scene.api

    def asked() -> int:
        return sum("/members/" in call.path for call in api.calls)

    policy = AllowList(users=frozenset({scene.ada.id}), roles=roles_of(scene, "staff"))
    with scene.bot(policy=policy):
        for _ in range(2):
            api.answer(api.slash(scene.ada, api.dm(scene.ada), "connections"))
        assert asked() == 0
        for _ in range(2):
            api.answer(api.slash(scene.bob, api.dm(scene.bob), "connections"))
        assert asked() == 1
        scene.clock.now += 31
        api.answer(api.slash(scene.bob, api.dm(scene.bob), "connections"))
        assert asked() == 2


def test_where_roles_cannot_be_asked_for_nobody_is_let_in(scene: Scene) -> None:
    api = scene.api
    with scene.bot(policy=AllowList(roles=roles_of(scene, "staff"))):
        api.fail_next("GET", "/members/", 403, {"message": "Missing Access", "code": 50001})
        said = api.answer(api.slash(scene.bob, api.dm(scene.bob), "connections"))
        assert ENGLISH.unknown_user_title in said.text

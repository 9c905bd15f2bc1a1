"""Which users may log in: ids, roles and guilds, in channels and direct messages; who owns the tokens."""

from __future__ import annotations

import re

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.discord import Options
from gateway_hooks.runtime.admission import Admission
from hermes_mcp_auth_remote.store.files.record_files import PeopleFile
from tests.gateway_hooks.discord.environment import DiscordEnvironment
from tests.parts.discord_api import Channel, User
from tests.requirements import covers

pytestmark = pytest.mark.slow


def role_ids(env: DiscordEnvironment, name: str) -> frozenset[str]:
    return frozenset(role.id for role in env.guild.roles.values() if role.name == name)


@covers("discord-people", "chat-listed")
def test_unknown_user_gets_id_once_and_starts_nothing(env: DiscordEnvironment) -> None:
    api, eve = env.api, env.eve
    with env.running_bot():
        reply = api.wait_for_response(api.slash(eve, env.channel, "connect", server="notes"))
        assert reply.ephemeral
        assert ENGLISH.unknown_user.format(user=eve.id) in reply.text
        assert api.autocomplete(eve, env.channel, "connect", "server", "") == []
        second_interaction = api.slash(eve, env.channel, "connect", server="notes")
        # The bot sends no second reply. It ends the state "is thinking".
        api.wait(lambda: second_interaction.original is not None and second_interaction.original.deleted)
    assert env.service.blocking.logins() == []


@pytest.mark.parametrize("is_direct", [True, False])
@covers("discord-people")
def test_role_admits_users_in_channels_and_direct_messages(
    env: DiscordEnvironment, *, is_direct: bool
) -> None:
    api = env.api

    def channel_of(user: User) -> Channel:
        return api.dm(user) if is_direct else env.channel

    policy = AllowList(roles=role_ids(env, "staff"), guilds=frozenset({env.guild.id}))
    with env.running_bot(policy=policy):
        assert "Connect notes" in env.request_prompt(env.bob, channel_of(env.bob)).text
        assert ENGLISH.unknown_user_title in env.request_prompt(env.ada, channel_of(env.ada)).text


@covers("discord-people")
def test_role_of_other_guild_does_not_count(env: DiscordEnvironment) -> None:
    policy = AllowList(roles=role_ids(env, "staff"), guilds=frozenset({"1"}))
    with env.running_bot(policy=policy):
        for channel in (env.channel, env.api.dm(env.bob)):
            env.clock.now += 3601
            assert ENGLISH.unknown_user_title in env.request_prompt(env.bob, channel).text


@covers("discord-people")
def test_guild_id_is_role_of_all_members(env: DiscordEnvironment) -> None:
    stranger = env.api.add_user("mallory")
    guild = frozenset({env.guild.id})
    with env.running_bot(policy=AllowList(roles=guild, guilds=guild)):
        assert "Connect notes" in env.request_prompt(env.eve, env.api.dm(env.eve)).text
        assert ENGLISH.unknown_user_title in env.request_prompt(stranger, env.api.dm(stranger)).text


@pytest.mark.parametrize("is_direct", [True, False])
@covers("discord-people", "chat-admins")
def test_admin_role_changes_shared_connections(env: DiscordEnvironment, *, is_direct: bool) -> None:
    policy = AllowList(users=frozenset({env.ada.id}), admin_roles=role_ids(env, "staff"))
    api = env.api
    with env.running_bot(policy=policy):
        for user, expected_text in ((env.ada, ENGLISH.admins_only), (env.bob, "Connect notes")):
            assert expected_text in env.request_prompt(user, api.dm(user) if is_direct else env.channel).text


@covers("discord-people", "chat-owners")
def test_users_have_own_connections_if_per_user(env: DiscordEnvironment) -> None:
    policy = AllowList(users=frozenset({env.ada.id, env.bob.id}), owners="per_user")
    with env.running_bot(policy=policy):
        prompt = env.request_prompt(env.ada)
        assert ENGLISH.approve_step.partition(" ")[2] in prompt.text
        env.submit_answer(env.ada, prompt, env.approve_login())
        env.wait_for_text(prompt, "notes: connected")
        connections_message = env.api.wait_for_response(env.api.slash(env.bob, env.channel, "connections"))
        assert ENGLISH.status_not_connected in connections_message.text
    assert env.service.blocking.connection(env.server) is None
    assert env.service.blocking.connection(env.server, f"discord:{env.ada.id}") is not None


@covers("discord-people")
def test_roles_are_fetched_only_if_needed_and_cached(env: DiscordEnvironment) -> None:
    api = env.api

    def count_member_requests() -> int:
        return sum("/members/" in call.path for call in api.calls)

    policy = AllowList(users=frozenset({env.ada.id}), roles=role_ids(env, "staff"))
    with env.running_bot(policy=policy):
        for _ in range(2):
            api.wait_for_response(api.slash(env.ada, api.dm(env.ada), "connections"))
        assert count_member_requests() == 0
        for _ in range(2):
            api.wait_for_response(api.slash(env.bob, api.dm(env.bob), "connections"))
        assert count_member_requests() == 1
        env.clock.now += 31
        api.wait_for_response(api.slash(env.bob, api.dm(env.bob), "connections"))
        assert count_member_requests() == 2


def test_no_user_is_admitted_if_roles_cannot_be_fetched(env: DiscordEnvironment) -> None:
    api = env.api
    with env.running_bot(policy=AllowList(roles=role_ids(env, "staff"))):
        api.fail_next("GET", "/members/", 403, {"message": "Missing Access", "code": 50001})
        reply = api.wait_for_response(api.slash(env.bob, api.dm(env.bob), "connections"))
        assert ENGLISH.unknown_user_title in reply.text


@covers("admission")
def test_words_that_admit_users_have_no_slash(env: DiscordEnvironment) -> None:
    api, ada, eve = env.api, env.ada, env.eve
    admission = Admission(AllowList(), "discord", PeopleFile(env.home), env.clock)
    code = admission.start_pairing()
    with env.running_bot(policy=admission, options=Options(answers_all=True)):
        api.say(ada, api.dm(ada), code)
        paired = env.wait_for_message(api.dm(ada), ENGLISH.paired_title, ada)
        assert "Send people to see" in paired.text
        api.say(eve, api.dm(eve), "hello")
        reply = env.wait_for_message(api.dm(eve), ENGLISH.unknown_user_title, eve)
        (request,) = re.findall(r"send me (approve \w{8}) in private", reply.text)
        api.say(ada, api.dm(ada), request)
        env.wait_for_message(api.dm(ada), f"{eve.id} may use", ada)
        env.wait_for_message(api.dm(eve), ENGLISH.admitted_title, eve)


@covers("chat-url", "discord-people")
def test_the_role_of_an_administrator_counts_in_direct_messages(env: DiscordEnvironment) -> None:
    api, bob = env.api, env.bob
    policy = AllowList(
        users={bob.id}, admin_roles=role_ids(env, "staff"), guilds={env.guild.id}, owners="per_user"
    )
    with env.running_bot(policy=policy):
        # The address is refused for itself, not for the user.
        reply = api.wait_for_response(api.slash(bob, api.dm(bob), "connect", server="https://127.0.0.1/mcp"))
        assert "public internet" in reply.text

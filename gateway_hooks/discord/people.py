"""Who is speaking on Discord: ids, and roles of the guild that they are heard from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import discord

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.dialog.policy import AllowList, Policy
from gateway_hooks.discord.errors import translate_errors
from hermes_mcp_auth_remote.values import Clock

# Outside a guild each is asked; a bot for logins lives in one or two.
MAX_GUILDS = 20
# How long what was asked holds, so that a person who writes much is not looked up each time.
SENDER_CACHE_SECONDS = 30.0
MAX_CACHED_SENDERS = 1000


@dataclass(slots=True)
class SenderLookup:
    """Looks people up as the policy needs them."""

    client: discord.Client
    policy: Policy
    clock: Clock = time.time
    _cache: dict[str, tuple[float, Sender]] = field(default_factory=dict[str, tuple[float, Sender]])

    async def sender_for(self, user: discord.User | discord.Member) -> Sender:
        """Return who is speaking: with the roles that came along, in a guild; else as `find` does."""
        return sender_of(user) if isinstance(user, discord.Member) else await self.find_sender(str(user.id))

    async def find_sender(self, user_id: str) -> Sender:
        """Return a user as they are in the guild that the policy thinks best of; raises ChatError.

        Without a guild's word a person has no roles. Only the guilds in which the bot is are asked, and only
        where the person's id alone does not do.
        """
        bare = Sender(user_id)
        if self.policy.may_change(bare):
            return bare
        now = self.clock()
        at, known = self._cache.get(user_id, (0.0, bare))
        if not at or not now - SENDER_CACHE_SECONDS < at <= now:
            known = await self._fetch_from_guilds(bare)
            if len(self._cache) >= MAX_CACHED_SENDERS:
                self._cache.clear()
            self._cache[user_id] = (now, known)
        return known

    async def _fetch_from_guilds(self, sender_without_roles: Sender) -> Sender:
        found = sender_without_roles
        for guild in self._relevant_guilds()[:MAX_GUILDS]:
            try:
                with translate_errors():
                    try:
                        member = await guild.fetch_member(int(sender_without_roles.user_id))
                    except discord.NotFound:
                        continue
            except ValueError:
                return sender_without_roles
            sender = sender_of(member)
            if self.policy.may_change(sender):
                return sender
            if self.policy.may_talk(sender) and not self.policy.may_talk(found):
                found = sender
        return found

    def _relevant_guilds(self) -> list[discord.Guild]:
        """Return those in which a role may count."""
        guilds, policy = list(self.client.guilds), self.policy
        if not isinstance(policy, AllowList):
            return guilds
        named = policy.roles | policy.admin_roles
        return [
            guild
            for guild in guilds
            if (not policy.guilds or str(guild.id) in policy.guilds)
            and any(str(role.id) in named for role in guild.roles)
        ]


def sender_of(member: discord.Member) -> Sender:
    """Return a guild's member with all their roles, "everyone" among them, whose id is the guild's."""
    roles = frozenset(str(role.id) for role in member.roles)
    return Sender(str(member.id), roles, str(member.guild.id))

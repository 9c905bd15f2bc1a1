"""Who is speaking on Discord: ids, and roles of the guild that they are heard from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import discord

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.dialog.policy import AllowList, Policy
from gateway_hooks.discord.errors import refusals
from hermes_mcp_auth_remote.values import Clock

# Outside a guild each is asked; a bot for logins lives in one or two.
MAX_GUILDS = 20
# How long what was asked holds, so that a person who writes much is not looked up each time.
KNOWN_SECONDS = 30.0
MAX_KNOWN = 1000


@dataclass(slots=True)
class People:
    """Looks people up as the policy needs them."""

    bot: discord.Client
    policy: Policy
    clock: Clock = time.time
    _known: dict[str, tuple[float, Sender]] = field(default_factory=dict[str, tuple[float, Sender]])

    async def heard(self, who: discord.User | discord.Member) -> Sender:
        """Return who is speaking: with the roles that came along, in a guild; else as `find` does."""
        return sender_of(who) if isinstance(who, discord.Member) else await self.find(str(who.id))

    async def find(self, user: str) -> Sender:
        """Return a user as they are in the guild that the policy thinks best of; raises ChatError.

        Without a guild's word a person has no roles. Only the guilds in which the bot is are asked, and only
        where the person's id alone does not do.
        """
        bare = Sender(user)
        if self.policy.may_change(bare):
            return bare
        now = self.clock()
        at, known = self._known.get(user, (0.0, bare))
        if not at or not now - KNOWN_SECONDS < at <= now:
            known = await self._look_up(bare)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[user] = (now, known)
        return known

    async def _look_up(self, bare: Sender) -> Sender:
        found = bare
        for guild in self._guilds()[:MAX_GUILDS]:
            try:
                with refusals():
                    try:
                        member = await guild.fetch_member(int(bare.user))
                    except discord.NotFound:
                        continue
            except ValueError:
                return bare
            sender = sender_of(member)
            if self.policy.may_change(sender):
                return sender
            if self.policy.may_talk(sender) and not self.policy.may_talk(found):
                found = sender
        return found

    def _guilds(self) -> list[discord.Guild]:
        """Return those in which a role may count."""
        guilds, policy = list(self.bot.guilds), self.policy
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

"""Look up Discord users and their roles in a guild."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import discord

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.dialog.policy import AllowList, Policy, allows_urls, may_log_in
from gateway_hooks.discord.errors import translate_errors
from gateway_hooks.runtime.admission import Admission
from hermes_mcp_auth_remote.values import Clock

# In a direct chat, the bot looks up a user's roles in at most this many guilds.
# Most login bots are in one or two guilds.
MAX_GUILDS = 20
# How long a fetched sender is cached.
SENDER_CACHE_SECONDS = 30.0
MAX_CACHED_SENDERS = 1000


@dataclass(slots=True)
class SenderLookup:
    """Looks up users with the roles that the policy needs."""

    client: discord.Client
    policy: Policy
    clock: Clock = time.time
    _cache: dict[str, tuple[float, Sender]] = field(default_factory=dict[str, tuple[float, Sender]])

    async def sender_for(self, user: discord.User | discord.Member) -> Sender:
        """Return the sender with the roles of a `Member`; look up the roles of a `User`."""
        return sender_of(user) if isinstance(user, discord.Member) else await self.find_sender(str(user.id))

    async def find_sender(self, user_id: str) -> Sender:
        """Return a user as a member of the guild that gives them the most permission; raises ChatError.

        The bot looks only in its own guilds, and only if the policy does not allow the user by id. If
        the user is in none of these guilds, the user has no roles.
        """
        sender_without_roles = Sender(user_id)
        if self._has_all_rights(sender_without_roles):
            return sender_without_roles
        now = self.clock()
        cached_at, sender = self._cache.get(user_id, (0.0, sender_without_roles))
        if not cached_at or not now - SENDER_CACHE_SECONDS < cached_at <= now:
            sender = await self._fetch_from_guilds(sender_without_roles)
            if len(self._cache) >= MAX_CACHED_SENDERS:
                self._cache.clear()
            self._cache[user_id] = (now, sender)
        return sender

    async def _fetch_from_guilds(self, sender_without_roles: Sender) -> Sender:
        best_sender = sender_without_roles
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
            if self._has_all_rights(sender):
                return sender
            best_sender = max(best_sender, sender, key=self._rank)
        return best_sender

    def _has_all_rights(self, sender: Sender) -> bool:
        """Return True if no role could give this sender more rights."""
        needs_admin = allows_urls(self.policy)
        return self.policy.may_change(sender) and (
            not needs_admin or may_log_in(self.policy, sender, is_configured=False)
        )

    def _rank(self, sender: Sender) -> tuple[bool, bool]:
        return self.policy.may_change(sender), self.policy.may_talk(sender)

    def _relevant_guilds(self) -> list[discord.Guild]:
        """Return the guilds with roles that may matter to the policy."""
        guilds, policy = list(self.client.guilds), self.policy
        if isinstance(policy, Admission):
            policy = policy.allow_list
        if not isinstance(policy, AllowList):
            return guilds
        role_ids = policy.roles | policy.admin_roles
        return [
            guild
            for guild in guilds
            if (not policy.guilds or str(guild.id) in policy.guilds)
            and any(str(role.id) in role_ids for role in guild.roles)
        ]


def sender_of(member: discord.Member) -> Sender:
    """Return the sender of a member with all roles, also the role "everyone" (its id is the guild's id)."""
    roles = frozenset(str(role.id) for role in member.roles)
    return Sender(str(member.id), roles, str(member.guild.id))

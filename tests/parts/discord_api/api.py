"""The API of the local Discord for tests: users, their actions, inspection and fault injection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import client_actions, entities
from .entities import Channel, Guild, Json, Role, User
from .faults import FaultInjection
from .messages import Interaction, Message, Modal
from .observer import Observer
from .payloads import guild_payload


class DiscordApi(Observer, FaultInjection):
    """Controls the local Discord. Methods are thread-safe; those that wait say so."""

    def add_user(self, name: str, user_id: int | str | None = None, *, dms_open: bool = True) -> User:
        """Create a user. While `dms_open` is false the bot cannot send them direct messages."""

        def act() -> User:
            user = User(str(user_id) if user_id is not None else self._state.new_id(), name)
            self._state.users[user.id] = user
            if not dms_open:
                self._state.users_with_closed_dms.add(user.id)
            return user

        return self._run_in_loop(act)

    def set_dms_open(self, user: User, *, dms_open: bool) -> None:
        update = (
            self._state.users_with_closed_dms.discard if dms_open else self._state.users_with_closed_dms.add
        )
        self._run_in_loop(lambda: update(user.id))

    def add_guild(
        self,
        name: str = "guild",
        members: Sequence[User] = (),
        *,
        roles: Mapping[str, Sequence[User]] | None = None,
        role_permissions: Mapping[str, int] | None = None,
        channels: Sequence[str] = ("general",),
        bot_permissions: int = entities.DEFAULT_PERMISSIONS,
        owner: User | None = None,
    ) -> Guild:
        """Create a guild with the bot in it. Permissions are bits, as in `discord.Permissions(...).value`."""

        def act() -> Guild:
            state = self._state
            owner_id = (owner or state.owner).id
            guild = Guild(state.new_id(), name, owner_id, bot_permissions)
            guild.members = {user.id: user for user in (*members, state.bot)}
            for role_name, holders in (roles or {}).items():
                role = Role(state.new_id(), role_name, (role_permissions or {}).get(role_name, 0))
                guild.roles[role.id] = role
                for holder in holders:
                    guild.role_ids_by_member.setdefault(holder.id, set()).add(role.id)
            for channel_name in channels:
                channel = Channel(state.new_id(), channel_name, guild.id)
                guild.channels[channel.id] = state.channels[channel.id] = channel
            state.guilds[guild.id] = guild
            self.gateway.send_guild_event("GUILD_CREATE", guild_payload(state, guild.id))
            return guild

        return self._run_in_loop(act)

    def dm(self, user: User) -> Channel:
        """Return the direct channel between a user and the bot."""
        return self._run_in_loop(lambda: self._state.dm(user))

    def register_commands(self, *bodies: Json) -> None:
        """Register global commands as an earlier run of the bot would: `command_changes` ignores them."""

        def act() -> None:
            scope = self._state.command_scope(None)
            previous_counts = scope.change_count, scope.overwrite_count
            scope.overwrite(list(bodies), self._state.new_id)
            scope.change_count, scope.overwrite_count = previous_counts

        self._run_in_loop(act)

    # Actions of a user. They raise NotOffered if the Discord client would not allow the action.

    def slash(self, user: User, channel: Channel, command: str, **options: Any) -> Interaction:
        """Send a slash command ("connect", or with a subcommand "mcp connect"). Does not wait."""
        return self._run_in_loop(
            lambda: client_actions.send_command(self._state, user, channel, command, options)
        )

    def autocomplete(
        self,
        user: User,
        channel: Channel,
        command: str,
        option: str,
        text: str,
        *,
        seconds: float = 10,
        **other_options: Any,
    ) -> list[Any]:
        """Type into an option, wait for the choices and return their values."""
        interaction = self._run_in_loop(
            lambda: client_actions.type_option(
                self._state, user, channel, command, option, text, other_options
            )
        )
        self.wait(lambda: interaction.choices is not None, seconds)
        return [choice["value"] for choice in interaction.choices or []]

    def press(self, user: User, message: Message, label_or_custom_id: str) -> Interaction:
        """Press a button of the current version of a message. Does not wait."""
        return self._run_in_loop(
            lambda: client_actions.press(self._state, user, message.id, label_or_custom_id)
        )

    def choose(self, user: User, message: Message, custom_id: str, *values: str) -> Interaction:
        """Choose from a menu, by values or labels. Does not wait."""
        return self._run_in_loop(
            lambda: client_actions.choose(self._state, user, message.id, custom_id, list(values))
        )

    def submit(self, user: User, modal: Modal, texts: Mapping[str, str]) -> Interaction:
        """Fill in a modal, by labels or custom ids, and submit it. Does not wait."""
        if modal.user != user:
            raise client_actions.NotOffered(f"{user.name} does not have that modal")
        return self._run_in_loop(lambda: client_actions.submit_modal(self._state, modal, dict(texts)))

    def say(
        self,
        user: User,
        channel: Channel,
        text: str,
        *,
        reply_to: Message | None = None,
        files: Sequence[tuple[str, bytes]] = (),
    ) -> Message:
        """Send a message to a channel or a DM, optionally as a reply or with files."""
        reply_to_id = None if reply_to is None else reply_to.id
        return self._run_in_loop(
            lambda: self.copy_message(
                client_actions.send_message(
                    self._state, user, channel, text, reply_to=reply_to_id, files=list(files)
                )
            )
        )

    def send_poll(self, user: User, channel: Channel, question: str, answers: Sequence[str]) -> Message:
        """Send a poll."""
        fields = client_actions.poll_fields(question, list(answers))
        return self._run_in_loop(
            lambda: self.copy_message(
                client_actions.send_message(self._state, user, channel, "", extra_fields=fields)
            )
        )

    def forward(self, user: User, channel: Channel, message: Message) -> Message:
        """Forward a message into a channel or a DM."""

        def act() -> Message:
            fields = client_actions.forward_fields(self._state, user, message.id)
            return self.copy_message(
                client_actions.send_message(self._state, user, channel, "", extra_fields=fields)
            )

        return self._run_in_loop(act)

    def send_as(self, author: User, channel: Channel, body: Json) -> Message:
        """Send a message of another bot or a webhook. `body` is as the API accepts it."""
        return self._run_in_loop(lambda: self.copy_message(self._state.create_message(channel, author, body)))

    def edit(self, user: User, message: Message, text: str) -> Message:
        """Edit the text of the user's own message."""
        return self._run_in_loop(
            lambda: self.copy_message(client_actions.edit_message(self._state, user, message.id, text))
        )

    def remove(self, user: User, message: Message) -> None:
        """Delete a message of the user, or dismiss an ephemeral message."""

        def act() -> None:
            current = client_actions.visible_message(self._state, user, message.id)
            if current.ephemeral:
                current.dismissed = True
            elif current.author == user:
                self._state.delete_message(current)
            else:
                raise client_actions.NotOffered(f"{user.name} is not the author of that message")

        self._run_in_loop(act)

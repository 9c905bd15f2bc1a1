"""The API of the local Discord for tests: users, their actions, inspection and fault injection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import person, world
from .messages import Interaction, Message, Modal
from .payloads import guild_payload
from .seen import Seen
from .trouble import Trouble
from .world import Channel, Guild, Json, Role, User


class DiscordApi(Seen, Trouble):
    """Controls the local Discord. Methods are thread-safe; those that wait say so."""

    def user(self, name: str, user_id: int | str | None = None, *, dms_open: bool = True) -> User:
        """Create a user. While `dms_open` is false the bot cannot send them direct messages."""

        def act() -> User:
            made = User(str(user_id) if user_id is not None else self._state.new_id(), name)
            self._state.users[made.id] = made
            if not dms_open:
                self._state.dms_closed.add(made.id)
            return made

        return self._in_loop(act)

    def set_dms_open(self, user: User, *, dms_open: bool) -> None:
        change = self._state.dms_closed.discard if dms_open else self._state.dms_closed.add
        self._in_loop(lambda: change(user.id))

    def guild(
        self,
        name: str = "guild",
        members: Sequence[User] = (),
        *,
        roles: Mapping[str, Sequence[User]] | None = None,
        role_permissions: Mapping[str, int] | None = None,
        channels: Sequence[str] = ("general",),
        bot_permissions: int = world.EVERYBODY,
        owner: User | None = None,
    ) -> Guild:
        """Create a guild with the bot in it. Permissions are bits, as in `discord.Permissions(...).value`."""

        def act() -> Guild:
            state = self._state
            owner_id = (owner or state.owner).id
            made = Guild(state.new_id(), name, owner_id, bot_permissions)
            made.members = {one.id: one for one in (*members, state.bot)}
            for role_name, holders in (roles or {}).items():
                role = Role(state.new_id(), role_name, (role_permissions or {}).get(role_name, 0))
                made.roles[role.id] = role
                for holder in holders:
                    made.held.setdefault(holder.id, set()).add(role.id)
            for channel_name in channels:
                channel = Channel(state.new_id(), channel_name, made.id)
                made.channels[channel.id] = state.channels[channel.id] = channel
            state.guilds[made.id] = made
            self.gateway.tell_guilds("GUILD_CREATE", guild_payload(state, made.id))
            return made

        return self._in_loop(act)

    def dm(self, user: User) -> Channel:
        """Return the direct channel between a user and the bot."""
        return self._in_loop(lambda: self._state.dm(user))

    def register(self, *bodies: Json) -> None:
        """Register global commands as an earlier run of the bot would: `command_changes` ignores them."""

        def act() -> None:
            scope = self._state.scope(None)
            before = scope.writes, scope.syncs
            scope.overwrite(list(bodies), self._state.new_id)
            scope.writes, scope.syncs = before

        self._in_loop(act)

    # Actions of a user. They raise NotOffered if the Discord client would not allow the action.

    def slash(self, user: User, channel: Channel, command: str, **options: Any) -> Interaction:
        """Send a slash command ("connect", or with a subcommand "mcp connect"). Does not wait."""
        return self._in_loop(lambda: person.slash(self._state, user, channel, command, options))

    def autocomplete(
        self,
        user: User,
        channel: Channel,
        command: str,
        option: str,
        text: str,
        *,
        seconds: float = 10,
        **others: Any,
    ) -> list[Any]:
        """Type into an option, wait for the choices and return their values."""
        typed = self._in_loop(
            lambda: person.type_option(self._state, user, channel, command, option, text, others)
        )
        self.wait(lambda: typed.choices is not None, seconds)
        return [choice["value"] for choice in typed.choices or []]

    def press(self, user: User, message: Message, label_or_custom_id: str) -> Interaction:
        """Press a button of the current version of a message. Does not wait."""
        return self._in_loop(lambda: person.press(self._state, user, message.id, label_or_custom_id))

    def choose(self, user: User, message: Message, custom_id: str, *values: str) -> Interaction:
        """Choose from a menu, by values or labels. Does not wait."""
        return self._in_loop(lambda: person.choose(self._state, user, message.id, custom_id, list(values)))

    def submit(self, user: User, modal: Modal, texts: Mapping[str, str]) -> Interaction:
        """Fill in a modal, by labels or custom ids, and submit it. Does not wait."""
        if modal.user != user:
            raise person.NotOffered(f"{user.name} does not have that modal")
        return self._in_loop(lambda: person.submit(self._state, modal, dict(texts)))

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
        replied = None if reply_to is None else reply_to.id
        return self._in_loop(
            lambda: self.copy(
                person.say(self._state, user, channel, text, reply_to=replied, files=list(files))
            )
        )

    def ask_poll(self, user: User, channel: Channel, question: str, answers: Sequence[str]) -> Message:
        """Send a poll."""
        more = person.poll(question, list(answers))
        return self._in_loop(lambda: self.copy(person.say(self._state, user, channel, "", more=more)))

    def forward(self, user: User, channel: Channel, message: Message) -> Message:
        """Forward a message into a channel or a DM."""

        def act() -> Message:
            more = person.forwarded(self._state, user, message.id)
            return self.copy(person.say(self._state, user, channel, "", more=more))

        return self._in_loop(act)

    def write(self, author: User, channel: Channel, body: Json) -> Message:
        """Send a message of another bot or a webhook. `body` is as the API accepts it."""
        return self._in_loop(lambda: self.copy(self._state.write(channel, author, body)))

    def edit(self, user: User, message: Message, text: str) -> Message:
        """Edit the text of the user's own message."""
        return self._in_loop(lambda: self.copy(person.edit(self._state, user, message.id, text)))

    def remove(self, user: User, message: Message) -> None:
        """Delete a message of the user, or dismiss an ephemeral message."""

        def act() -> None:
            found = person.visible(self._state, user, message.id)
            if found.ephemeral:
                found.dismissed = True
            elif found.author == user:
                self._state.delete(found)
            else:
                raise person.NotOffered(f"{user.name} is not the author of that message")

        self._in_loop(act)

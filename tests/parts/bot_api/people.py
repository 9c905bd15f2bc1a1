"""The actions of users in their chats."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from tests.parts.bot_api.entities import found
from tests.parts.bot_api.limits import START_PAYLOAD, TEXT_CHARACTERS
from tests.parts.bot_api.methods import administrator_json
from tests.parts.bot_api.seen import Seen
from tests.parts.bot_api.values import Button, Chat, Json, Message, User
from tests.parts.bot_api.world import Pressed


class Impossible(Exception):
    """An action that Telegram's clients do not allow."""


class People(Seen):
    """The actions of users. Methods may be called from any thread."""

    def user(self, user_id: int, first_name: str, username: str = "") -> User:
        """Add a user who has not pressed Start."""
        user = User(user_id, first_name, username)
        with self.world.lock:
            self.world.chats[user_id] = Chat(user_id, "private", first_name, {user_id: user})
        return user

    def private(self, user: User) -> Chat:
        """Return a user's chat with the bot."""
        return self.world.chats[user.id]

    def group(
        self,
        chat_id: int,
        title: str,
        members: Iterable[User] = (),
        *,
        forum: bool = False,
        bot_can_delete: bool = False,
    ) -> Chat:
        """Add a supergroup with the bot (an administrator if `bot_can_delete`); its id is negative."""
        if chat_id >= 0:
            raise Impossible("A group's id is negative.")
        people = {user.id: user for user in members}
        chat = Chat(chat_id, "supergroup", title, people, forum, bot_can_delete=bot_can_delete)
        with self.world.lock:
            self.world.chats[chat_id] = chat
        return chat

    def topic(self, chat: Chat, name: str, user: User | None = None) -> int:
        """Add a topic to a forum and return its thread id."""
        if not chat.forum:
            raise Impossible("Only a forum has topics.")
        opener = user or next(iter(chat.members.values()))
        with self.world.lock:
            made = self.world.add(chat, Message(chat.id, 0, opener, self.world.clock(), topic_created=name))
            chat.topics[made.id] = name
            self.world.edit(replace(made, thread=made.id))
        return made.id

    def start(self, user: User, payload: str = "") -> Message:
        """Press Start, with the payload of a deep link if any; unblock the bot."""
        if payload and not re.fullmatch(START_PAYLOAD, payload):
            raise Impossible("A start payload has 1 to 64 letters, digits, _ and -.")
        chat = self.private(user)
        if chat.blocked:
            self.unblock(user)
        chat.started = True
        return self.say(user, f"/start {payload}".rstrip())

    def open_deep_link(self, user: User, url: str) -> Message:
        """Open `https://t.me/<bot>?start=...` or `tg://resolve?domain=<bot>&start=...` and press Start."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        at_t_me = (parts.scheme, parts.netloc) == ("https", "t.me")
        name = parts.path.strip("/") if at_t_me else query.get("domain", [""])[0]
        if name.lower() != self.world.bot.username.lower():
            raise Impossible("The link does not lead to this bot.")
        return self.start(user, query.get("start", [""])[0])

    def say(
        self,
        user: User,
        text: str,
        chat: Chat | None = None,
        thread: int | None = None,
        reply_to: Message | None = None,
    ) -> Message:
        """Send a text to a chat (default: the private one), trimmed, and split if it exceeds the limit.

        Return the first message. In a forum, no thread means the General topic.
        """
        chat = chat or self.private(user)
        if chat.type == "private" and (chat.blocked or not chat.started):
            raise Impossible("A private chat that is not started has only the Start button.")
        if user.id not in chat.members:
            raise Impossible("Only members can write in a group.")
        if thread is not None and thread not in chat.topics:
            raise Impossible("The topic does not exist.")
        text = text.strip()
        if not text:
            raise Impossible("The text is empty.")
        pieces = [text[at : at + TEXT_CHARACTERS] for at in range(0, len(text), TEXT_CHARACTERS)]
        first, *_ = [self._say(user, chat, piece, thread, reply_to) for piece in pieces]
        return first

    def _say(
        self, user: User, chat: Chat, text: str, thread: int | None, reply_to: Message | None
    ) -> Message:
        replied = reply_to.id if reply_to else None
        message = Message(
            chat.id, 0, user, self.world.clock(), text, found(text), thread=thread, reply_to=replied
        )
        with self.world.lock:
            made = self.world.add(chat, message)
            if self._heard(chat, made):
                self.world.push("message", self.world.message_json(made))
        return made

    def _heard(self, chat: Chat, message: Message) -> bool:
        """Return True if the bot gets a message: privacy mode hides most messages of a group."""
        if not chat.bot_is_member:
            return False
        if chat.type == "private" or not self.world.privacy_mode or chat.bot_can_delete:
            return True
        replied = self.world.message(chat.id, message.reply_to) if message.reply_to else None
        if replied is not None and replied.from_bot:
            return True
        mention = f"@{self.world.bot.username}".lower()
        for entity in message.entities:
            part = message.part(entity).lower()
            if entity.type == "bot_command" and ("@" not in part or part.endswith(mention)):
                return True
        return False

    def edit(self, user: User, message: Message, text: str) -> Message:
        """Edit the user's own message; the bot gets `edited_message`."""
        if message.sender.id != user.id:
            raise Impossible("Users can edit only their own messages.")
        with self.world.lock:
            self._standing(message)
            made = self.world.edit(
                replace(message, text=text, entities=found(text), edited_at=self.world.clock())
            )
            if self._heard(self.world.chats[message.chat_id], made):
                self.world.push("edited_message", self.world.message_json(made))
        return made

    def delete(self, user: User, message: Message) -> None:
        """Delete a message for all members; the bot gets no update.

        In a private chat, users can also delete the bot's messages.
        """
        chat = self.world.chats[message.chat_id]
        if message.sender.id != user.id and chat.type != "private":
            raise Impossible("Users can delete only their own messages.")
        self._standing(message)
        self.world.delete(message)

    def press(self, user: User, message: Message, button: str) -> Pressed:
        """Press the inline button with this label or callback_data."""
        with self.world.lock:
            standing = self._standing(message)
            if user.id not in self.world.chats[message.chat_id].members:
                raise Impossible("Only members see the buttons of a chat.")
            found_button = _button(standing, button)
            if found_button.callback_data is None:
                raise Impossible("The button has no callback_data; see `button_url` and `copied_text`.")
            pressed = Pressed(
                f"47{self.world.serial():016d}",
                user,
                standing,
                found_button.callback_data,
                self.world.clock(),
                self.world.changed,
            )
            self.world.pressed[pressed.id] = pressed
            query: Json = {
                "id": pressed.id,
                "from": user.json(),
                "message": self.world.message_json(standing),
                "chat_instance": str(7_000_000_000 + abs(standing.chat_id)),
                "data": pressed.data,
            }
            self.world.push("callback_query", query)
        return pressed

    def url_of(self, message: Message, label: str) -> str:
        """Return a button's URL."""
        url = _button(self._standing(message), label).url
        if url is None:
            raise Impossible("The button has no URL.")
        return url

    def copied_from(self, message: Message, label: str) -> str:
        """Return the text that a copy button copies."""
        text = _button(self._standing(message), label).copy_text
        if text is None:
            raise Impossible("The button has no copy_text.")
        return text

    def _standing(self, message: Message) -> Message:
        standing = self.world.message(message.chat_id, message.id)
        if standing is None:
            raise Impossible("The message is deleted.")
        return standing

    def block(self, user: User) -> None:
        """Block the bot; it gets `my_chat_member`."""
        self._membership(user, "member", "kicked")

    def unblock(self, user: User) -> None:
        self._membership(user, "kicked", "member")

    def _membership(self, user: User, before: str, after: str) -> None:
        chat = self.private(user)
        bot = self.world.bot.json()
        with self.world.lock:
            chat.blocked = after == "kicked"
            change: Json = {"chat": chat.json(), "from": user.json(), "date": int(self.world.clock())}
            for name, status in (("old_chat_member", before), ("new_chat_member", after)):
                ends: Json = {"until_date": 0} if status == "kicked" else {}
                change[name] = {"user": bot, "status": status} | ends
            self.world.push("my_chat_member", change)

    def promote(self, chat: Chat, *, bot_can_delete: bool) -> None:
        """Make the bot an administrator who may delete messages, or an ordinary member."""
        chat.bot_can_delete = bot_can_delete
        bot = self.world.bot
        plain: Json = {"user": bot.json(), "status": "member"}
        admin = administrator_json(bot)
        opener = next(iter(chat.members.values()))
        change: Json = {"chat": chat.json(), "from": opener.json(), "date": int(self.world.clock())}
        change["old_chat_member"], change["new_chat_member"] = (
            (plain, admin) if bot_can_delete else (admin, plain)
        )
        self.world.push("my_chat_member", change)


def _button(message: Message, name: str) -> Button:
    for button in message.buttons:
        if name in {button.text, button.callback_data}:
            return button
    raise Impossible(
        f"The button does not exist. The buttons are {[button.text for button in message.buttons]}."
    )

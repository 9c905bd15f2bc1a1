"""The actions of users in their chats."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from tests.parts.bot_api.entities import detect_entities
from tests.parts.bot_api.limits import START_PAYLOAD, TEXT_CHARACTERS
from tests.parts.bot_api.methods import administrator_json
from tests.parts.bot_api.observer import Observer
from tests.parts.bot_api.state import ButtonPress
from tests.parts.bot_api.values import Button, Chat, Json, Message, User


class ImpossibleAction(Exception):
    """An action that Telegram's clients do not allow."""


class UserActions(Observer):
    """The actions of users. Methods may be called from any thread."""

    def add_user(self, user_id: int, first_name: str, username: str = "") -> User:
        """Add a user who has not pressed Start."""
        user = User(user_id, first_name, username)
        with self.state.lock:
            self.state.chats[user_id] = Chat(user_id, "private", first_name, {user_id: user})
        return user

    def private_chat(self, user: User) -> Chat:
        """Return a user's chat with the bot."""
        return self.state.chats[user.id]

    def add_group(
        self,
        chat_id: int,
        title: str,
        members: Iterable[User] = (),
        *,
        forum: bool = False,
        bot_can_delete: bool = False,
    ) -> Chat:
        """Add a supergroup with the bot (as administrator if `bot_can_delete`). The id is negative."""
        if chat_id >= 0:
            raise ImpossibleAction("A group's id is negative.")
        member_by_id = {user.id: user for user in members}
        chat = Chat(chat_id, "supergroup", title, member_by_id, forum, bot_can_delete=bot_can_delete)
        with self.state.lock:
            self.state.chats[chat_id] = chat
        return chat

    def add_topic(self, chat: Chat, name: str, user: User | None = None) -> int:
        """Add a topic to a forum and return its thread id."""
        if not chat.is_forum:
            raise ImpossibleAction("Only a forum has topics.")
        opener = user or next(iter(chat.members.values()))
        with self.state.lock:
            topic_message = self.state.add_message(
                chat, Message(chat.id, 0, opener, self.state.clock(), topic_created=name)
            )
            chat.topics[topic_message.id] = name
            self.state.replace_message(replace(topic_message, thread=topic_message.id))
        return topic_message.id

    def start(self, user: User, payload: str = "") -> Message:
        """Press Start, with the payload of a deep link if there is one; unblock the bot."""
        if payload and not re.fullmatch(START_PAYLOAD, payload):
            raise ImpossibleAction("A start payload has 1 to 64 letters, digits, _ and -.")
        chat = self.private_chat(user)
        if chat.has_blocked_bot:
            self.unblock(user)
        chat.is_started = True
        return self.say(user, f"/start {payload}".rstrip())

    def open_deep_link(self, user: User, url: str) -> Message:
        """Open `https://t.me/<bot>?start=...` or `tg://resolve?domain=<bot>&start=...` and press Start."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        is_t_me = (parts.scheme, parts.netloc) == ("https", "t.me")
        name = parts.path.strip("/") if is_t_me else query.get("domain", [""])[0]
        if name.lower() != self.state.bot.username.lower():
            raise ImpossibleAction("The link does not lead to this bot.")
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
        chat = chat or self.private_chat(user)
        if chat.type == "private" and (chat.has_blocked_bot or not chat.is_started):
            raise ImpossibleAction("A private chat that is not started has only the Start button.")
        if user.id not in chat.members:
            raise ImpossibleAction("Only members can write in a group.")
        if thread is not None and thread not in chat.topics:
            raise ImpossibleAction("The topic does not exist.")
        text = text.strip()
        if not text:
            raise ImpossibleAction("The text is empty.")
        pieces = [text[at : at + TEXT_CHARACTERS] for at in range(0, len(text), TEXT_CHARACTERS)]
        first, *_ = [self._send_piece(user, chat, piece, thread, reply_to) for piece in pieces]
        return first

    def _send_piece(
        self, user: User, chat: Chat, text: str, thread: int | None, reply_to: Message | None
    ) -> Message:
        reply_to_id = reply_to.id if reply_to else None
        message = Message(
            chat.id,
            0,
            user,
            self.state.clock(),
            text,
            detect_entities(text),
            thread=thread,
            reply_to=reply_to_id,
        )
        with self.state.lock:
            sent = self.state.add_message(chat, message)
            if self._is_visible_to_bot(chat, sent):
                self.state.push("message", self.state.message_json(sent))
        return sent

    def _is_visible_to_bot(self, chat: Chat, message: Message) -> bool:
        """Return True if the bot gets a message: privacy mode hides most messages of a group."""
        if not chat.bot_is_member:
            return False
        if chat.type == "private" or not self.state.privacy_mode or chat.bot_can_delete:
            return True
        replied = self.state.message(chat.id, message.reply_to) if message.reply_to else None
        if replied is not None and replied.is_from_bot:
            return True
        mention = f"@{self.state.bot.username}".lower()
        for entity in message.entities:
            command = message.entity_text(entity).lower()
            if entity.type == "bot_command" and ("@" not in command or command.endswith(mention)):
                return True
        return False

    def edit(self, user: User, message: Message, text: str) -> Message:
        """Edit the user's own message; the bot gets `edited_message`."""
        if message.sender.id != user.id:
            raise ImpossibleAction("Users can edit only their own messages.")
        with self.state.lock:
            self._current_message(message)
            edited = self.state.replace_message(
                replace(message, text=text, entities=detect_entities(text), edited_at=self.state.clock())
            )
            if self._is_visible_to_bot(self.state.chats[message.chat_id], edited):
                self.state.push("edited_message", self.state.message_json(edited))
        return edited

    def delete(self, user: User, message: Message) -> None:
        """Delete a message for all members; the bot gets no update.

        In a private chat, users can also delete the bot's messages.
        """
        chat = self.state.chats[message.chat_id]
        if message.sender.id != user.id and chat.type != "private":
            raise ImpossibleAction("Users can delete only their own messages.")
        self._current_message(message)
        self.state.delete_message(message)

    def press(self, user: User, message: Message, button: str) -> ButtonPress:
        """Press the inline button with this label or callback_data."""
        with self.state.lock:
            current = self._current_message(message)
            if user.id not in self.state.chats[message.chat_id].members:
                raise ImpossibleAction("Only members see the buttons of a chat.")
            pressed_button = _find_button(current, button)
            if pressed_button.callback_data is None:
                raise ImpossibleAction("The button has no callback_data; see `button_url` and `copied_text`.")
            button_press = ButtonPress(
                f"47{self.state.next_serial():016d}",
                user,
                current,
                pressed_button.callback_data,
                self.state.clock(),
                self.state.changed,
            )
            self.state.button_presses[button_press.id] = button_press
            query: Json = {
                "id": button_press.id,
                "from": user.json(),
                "message": self.state.message_json(current),
                "chat_instance": str(7_000_000_000 + abs(current.chat_id)),
                "data": button_press.data,
            }
            self.state.push("callback_query", query)
        return button_press

    def button_url(self, message: Message, label: str) -> str:
        """Return a button's URL."""
        url = _find_button(self._current_message(message), label).url
        if url is None:
            raise ImpossibleAction("The button has no URL.")
        return url

    def copied_text(self, message: Message, label: str) -> str:
        """Return the text that a copy button copies."""
        text = _find_button(self._current_message(message), label).copy_text
        if text is None:
            raise ImpossibleAction("The button has no copy_text.")
        return text

    def _current_message(self, message: Message) -> Message:
        current = self.state.message(message.chat_id, message.id)
        if current is None:
            raise ImpossibleAction("The message is deleted.")
        return current

    def block(self, user: User) -> None:
        """Block the bot. The bot gets `my_chat_member`."""
        self._change_membership(user, "member", "kicked")

    def unblock(self, user: User) -> None:
        self._change_membership(user, "kicked", "member")

    def _change_membership(self, user: User, old_status: str, new_status: str) -> None:
        chat = self.private_chat(user)
        bot = self.state.bot.json()
        with self.state.lock:
            chat.has_blocked_bot = new_status == "kicked"
            change: Json = {"chat": chat.json(), "from": user.json(), "date": int(self.state.clock())}
            for name, status in (("old_chat_member", old_status), ("new_chat_member", new_status)):
                extra: Json = {"until_date": 0} if status == "kicked" else {}
                change[name] = {"user": bot, "status": status} | extra
            self.state.push("my_chat_member", change)

    def set_bot_admin(self, chat: Chat, *, bot_can_delete: bool) -> None:
        """Make the bot an administrator who may delete messages, or an ordinary member."""
        chat.bot_can_delete = bot_can_delete
        bot = self.state.bot
        member: Json = {"user": bot.json(), "status": "member"}
        admin = administrator_json(bot)
        opener = next(iter(chat.members.values()))
        change: Json = {"chat": chat.json(), "from": opener.json(), "date": int(self.state.clock())}
        change["old_chat_member"], change["new_chat_member"] = (
            (member, admin) if bot_can_delete else (admin, member)
        )
        self.state.push("my_chat_member", change)


def _find_button(message: Message, name: str) -> Button:
    for button in message.buttons:
        if name in {button.text, button.callback_data}:
            return button
    raise ImpossibleAction(
        f"The button does not exist. The buttons are {[button.text for button in message.buttons]}."
    )

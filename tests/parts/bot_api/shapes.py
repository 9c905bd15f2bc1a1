"""Files, contacts, polls, channel posts, inline queries and business messages of users.

Limits are those of Bot API 9.x; the members are those that the classes of python-telegram-bot read.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.parts.bot_api.entities import found, placed
from tests.parts.bot_api.limits import TEXT_CHARACTERS
from tests.parts.bot_api.people import Impossible, People
from tests.parts.bot_api.values import Chat, Entity, File, Json, Message, User
from tests.parts.bot_api.world import Business

# https://core.telegram.org/bots/api: Poll, InlineQuery, and the field of a contact's name.
QUESTION_CHARACTERS, OPTION_CHARACTERS, OPTIONS = 300, 100, range(2, 13)
QUERY_CHARACTERS = 256
NAME_CHARACTERS = 64


class Shapes(People):
    """Actions of users other than plain text messages."""

    def send(
        self,
        user: User,
        chat: Chat | None = None,
        *,
        text: str = "",
        links: Sequence[tuple[str, str]] = (),
        file: tuple[str, bytes] | None = None,
        reply_to: Message | None = None,
        more: Json | None = None,
        kind: str = "message",
    ) -> Message:
        """Send a message. `links` are pairs of a part of the text and its URL; `file` is a name and bytes.

        The text is the caption of the file. `extra_members` are other members of the Message object.
        """
        chat = chat or self.private(user)
        if user.id not in chat.members and not user.is_bot:
            raise Impossible("Only members can write in a chat.")
        if len(text) > TEXT_CHARACTERS or not (text or file or more):
            raise Impossible("The message is too long or empty.")
        entities = found(text, tuple(_link(text, part, url) for part, url in links))
        message = Message(
            chat.id,
            0,
            user,
            self.world.clock(),
            text,
            entities,
            document=None if file is None else self._file(*file),
            reply_to=None if reply_to is None else reply_to.id,
            more=more or {},
        )
        with self.world.lock:
            made = self.world.add(chat, message)
            if self._heard(chat, made):
                self.world.push(kind, self.world.message_json(made))
        return made

    def _file(self, name: str, content: bytes) -> File:
        if not content:
            raise Impossible("An empty file cannot be sent.")
        number = self.world.serial()
        made = File(f"BQACAg{number:08d}", f"AgAD{number:06d}", name, content)
        self.world.files[made.id] = made
        return made

    def send_contact(self, user: User, first_name: str, vcard: str = "", chat: Chat | None = None) -> Message:
        """Send a contact, optionally with a vCard."""
        if not 1 <= len(first_name) <= NAME_CHARACTERS and not vcard:
            raise Impossible("A contact's name has 1 to 64 characters.")
        contact: Json = {"phone_number": "4915112345678", "first_name": first_name}
        return self.send(user, chat, more={"contact": contact | ({"vcard": vcard} if vcard else {})})

    def send_poll(
        self, user: User, question: str, options: Sequence[str], chat: Chat | None = None
    ) -> Message:
        if not 1 <= len(question) <= QUESTION_CHARACTERS or len(options) not in OPTIONS:
            raise Impossible("A poll has a question of 1 to 300 characters, and 2 to 12 options.")
        if not all(1 <= len(option) <= OPTION_CHARACTERS for option in options):
            raise Impossible("An option has 1 to 100 characters.")
        poll: Json = {
            "id": str(5_000_000_000 + self.world.serial()),
            "question": question,
            "options": [
                {"text": option, "voter_count": 0, "persistent_id": option[:8]} for option in options
            ],
            "total_voter_count": 0,
            "is_closed": False,
            "is_anonymous": True,
            "type": "regular",
            "allows_multiple_answers": False,
            # Bot API 9.6 and 10.0.
            "allows_revoting": False,
            "members_only": False,
        }
        return self.send(user, chat, more={"poll": poll})

    def pin(self, user: User, message: Message) -> Message:
        """Pin a message; this adds a service message to the chat."""
        chat = self.world.chats[message.chat_id]
        return self.send(user, chat, more={"pinned_message": self.world.message_json(message)})

    def channel(self, chat_id: int, title: str, *, bot_can_delete: bool = True) -> Chat:
        """Add a channel in which the bot is an administrator."""
        if chat_id >= 0:
            raise Impossible("A channel's id is negative.")
        chat = Chat(chat_id, "channel", title, bot_can_delete=bot_can_delete)
        with self.world.lock:
            self.world.chats[chat_id] = chat
        return chat

    def post(self, author: User, chat: Chat, text: str) -> Message:
        """Send a post to a channel; the bot gets `channel_post`."""
        chat.members.setdefault(author.id, author)
        return self.send(author, chat, text=text, kind="channel_post")

    def query(self, user: User, query: str) -> None:
        """Send an inline query, as a user who types the bot's name and a text in any chat."""
        if len(query) > QUERY_CHARACTERS:
            raise Impossible("An inline query has at most 256 characters.")
        asked: Json = {"id": str(self.world.serial()), "from": user.json(), "query": query, "offset": ""}
        self.world.push("inline_query", asked | {"chat_type": "sender"})

    def choose_result(self, user: User, query: str) -> None:
        """Choose a result of an inline query, for a bot that has enabled inline feedback in BotFather."""
        chosen: Json = {"result_id": "1", "from": user.json(), "query": query[:QUERY_CHARACTERS]}
        self.world.push("chosen_inline_result", chosen)

    # Business accounts.

    def connect_business(self, owner: User, *, can_delete: bool = True) -> Business:
        """Connect the bot to a business account; the bot gets `business_connection`."""
        made = Business(f"business-{self.world.serial():08d}", owner, can_delete)
        with self.world.lock:
            self.world.business[made.id] = made
            connection: Json = {
                "id": made.id,
                "user": owner.json(),
                "user_chat_id": owner.id,
                "date": int(self.world.clock()),
                "rights": {"can_delete_all_messages": True} if can_delete else {},
                "is_enabled": True,
            }
            self.world.push("business_connection", connection)
        return made

    def write_in_business(
        self, business: Business, sender: User, other: User, text: str, edits: int | None = None
    ) -> int:
        """Send a message in the account's chat with `other`, or edit the message `edits`; return its id."""
        if sender.id not in {business.owner.id, other.id} or (edits and edits not in business.messages):
            raise Impossible("Only the two users can write in the chat and edit its messages.")
        number = edits or 9000 + self.world.serial()
        message: Json = {
            "message_id": number,
            "business_connection_id": business.id,
            "from": sender.json(),
            "chat": Chat(other.id, "private", other.first_name, {other.id: other}).json(),
            "date": int(self.world.clock()),
            "text": text,
        }
        if edits:
            message["edit_date"] = int(self.world.clock())
        with self.world.lock:
            business.messages[number] = message
            self.world.push("edited_business_message" if edits else "business_message", message)
        return number


def _link(text: str, part: str, url: str) -> Entity:
    """Return the text_link entity for a part of a text, as a client creates it."""
    at = text.index(part)
    before, length = (len(one.encode("utf-16-le")) // 2 for one in (text[:at], part))
    return placed(Entity("text_link", before, length, {"url": url}), text)

"""Files, contacts, polls, channel posts, inline queries and business messages of users.

The limits are those of Bot API 9.x. The objects have the members that python-telegram-bot's classes read.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.parts.bot_api.entities import detect_entities, validate_entity
from tests.parts.bot_api.limits import TEXT_CHARACTERS
from tests.parts.bot_api.state import BusinessConnection
from tests.parts.bot_api.user_actions import ImpossibleAction, UserActions
from tests.parts.bot_api.values import Chat, Entity, File, Json, Message, User

# https://core.telegram.org/bots/api: Poll, InlineQuery, and the field of a contact's name.
QUESTION_CHARACTERS, OPTION_CHARACTERS, OPTION_COUNTS = 300, 100, range(2, 13)
QUERY_CHARACTERS = 256
NAME_CHARACTERS = 64


class ExtendedUserActions(UserActions):
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
        extra_members: Json | None = None,
        update_kind: str = "message",
    ) -> Message:
        """Send a message. Each of `links` is a part of the text and its URL; `file` is a name and bytes.

        The text is the caption of the file. `extra_members` are other members of the Message object.
        """
        chat = chat or self.private_chat(user)
        if user.id not in chat.members and not user.is_bot:
            raise ImpossibleAction("Only members can write in a chat.")
        if len(text) > TEXT_CHARACTERS or not (text or file or extra_members):
            raise ImpossibleAction("The message is too long or empty.")
        entities = detect_entities(text, tuple(_link_entity(text, part, url) for part, url in links))
        message = Message(
            chat.id,
            0,
            user,
            self.state.clock(),
            text,
            entities,
            document=None if file is None else self._add_file(*file),
            reply_to=None if reply_to is None else reply_to.id,
            extra_members=extra_members or {},
        )
        with self.state.lock:
            sent = self.state.add_message(chat, message)
            if self._is_visible_to_bot(chat, sent):
                self.state.push(update_kind, self.state.message_json(sent))
        return sent

    def _add_file(self, name: str, content: bytes) -> File:
        if not content:
            raise ImpossibleAction("An empty file cannot be sent.")
        number = self.state.next_serial()
        file = File(f"BQACAg{number:08d}", f"AgAD{number:06d}", name, content)
        self.state.files[file.id] = file
        return file

    def send_contact(self, user: User, first_name: str, vcard: str = "", chat: Chat | None = None) -> Message:
        """Send a contact, optionally with a vCard."""
        if not 1 <= len(first_name) <= NAME_CHARACTERS and not vcard:
            raise ImpossibleAction("A contact's name has 1 to 64 characters.")
        contact: Json = {"phone_number": "4915112345678", "first_name": first_name}
        return self.send(user, chat, extra_members={"contact": contact | ({"vcard": vcard} if vcard else {})})

    def send_poll(
        self, user: User, question: str, options: Sequence[str], chat: Chat | None = None
    ) -> Message:
        if not 1 <= len(question) <= QUESTION_CHARACTERS or len(options) not in OPTION_COUNTS:
            raise ImpossibleAction("A poll has a question of 1 to 300 characters, and 2 to 12 options.")
        if not all(1 <= len(option) <= OPTION_CHARACTERS for option in options):
            raise ImpossibleAction("An option has 1 to 100 characters.")
        poll: Json = {
            "id": str(5_000_000_000 + self.state.next_serial()),
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
        return self.send(user, chat, extra_members={"poll": poll})

    def pin(self, user: User, message: Message) -> Message:
        """Pin a message; this adds a service message to the chat."""
        chat = self.state.chats[message.chat_id]
        return self.send(user, chat, extra_members={"pinned_message": self.state.message_json(message)})

    def add_channel(self, chat_id: int, title: str, *, bot_can_delete: bool = True) -> Chat:
        """Add a channel in which the bot is an administrator."""
        if chat_id >= 0:
            raise ImpossibleAction("A channel's id is negative.")
        chat = Chat(chat_id, "channel", title, bot_can_delete=bot_can_delete)
        with self.state.lock:
            self.state.chats[chat_id] = chat
        return chat

    def post_to_channel(self, author: User, chat: Chat, text: str) -> Message:
        """Send a post to a channel; the bot gets `channel_post`."""
        chat.members.setdefault(author.id, author)
        return self.send(author, chat, text=text, update_kind="channel_post")

    def send_inline_query(self, user: User, query: str) -> None:
        """Send an inline query, as a user who types the bot's name and a text in any chat."""
        if len(query) > QUERY_CHARACTERS:
            raise ImpossibleAction("An inline query has at most 256 characters.")
        inline_query: Json = {
            "id": str(self.state.next_serial()),
            "from": user.json(),
            "query": query,
            "offset": "",
        }
        self.state.push("inline_query", inline_query | {"chat_type": "sender"})

    def choose_result(self, user: User, query: str) -> None:
        """Choose a result of an inline query. The bot has enabled inline feedback in BotFather."""
        inline_result: Json = {"result_id": "1", "from": user.json(), "query": query[:QUERY_CHARACTERS]}
        self.state.push("chosen_inline_result", inline_result)

    # Business accounts.

    def connect_business(self, owner: User, *, can_delete: bool = True) -> BusinessConnection:
        """Connect the bot to a business account; the bot gets `business_connection`."""
        business = BusinessConnection(f"business-{self.state.next_serial():08d}", owner, can_delete)
        with self.state.lock:
            self.state.business_connections[business.id] = business
            connection: Json = {
                "id": business.id,
                "user": owner.json(),
                "user_chat_id": owner.id,
                "date": int(self.state.clock()),
                "rights": {"can_delete_all_messages": True} if can_delete else {},
                "is_enabled": True,
            }
            self.state.push("business_connection", connection)
        return business

    def write_in_business(
        self, business: BusinessConnection, sender: User, other: User, text: str, edits: int | None = None
    ) -> int:
        """Send a message in the account's chat with `other`, or edit the message `edits`. Return its id."""
        if sender.id not in {business.owner.id, other.id} or (edits and edits not in business.messages):
            raise ImpossibleAction("Only the two users can write in the chat and edit its messages.")
        number = edits or 9000 + self.state.next_serial()
        message: Json = {
            "message_id": number,
            "business_connection_id": business.id,
            "from": sender.json(),
            "chat": Chat(other.id, "private", other.first_name, {other.id: other}).json(),
            "date": int(self.state.clock()),
            "text": text,
        }
        if edits:
            message["edit_date"] = int(self.state.clock())
        with self.state.lock:
            business.messages[number] = message
            self.state.push("edited_business_message" if edits else "business_message", message)
        return number


def _link_entity(text: str, part: str, url: str) -> Entity:
    """Return the text_link entity for a part of a text, as a client creates it."""
    at = text.index(part)
    offset, length = (len(piece.encode("utf-16-le")) // 2 for piece in (text[:at], part))
    return validate_entity(Entity("text_link", offset, length, {"url": url}), text)

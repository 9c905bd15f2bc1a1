"""Look up what parameters refer to: a chat, a thread, a message, a file."""

from __future__ import annotations

import re
import struct

from tests.parts.bot_api.limits import DOCUMENT_BYTES, PHOTO_BYTES, PHOTO_RATIO, PHOTO_SIDES
from tests.parts.bot_api.parameters import Parameters, Upload
from tests.parts.bot_api.state import BotApiState
from tests.parts.bot_api.values import Chat, File, Message, bad_request


def chat_of(state: BotApiState, parameters: Parameters, *, for_writing: bool = False) -> Chat:
    """Return the chat of `chat_id`; raise ApiError."""
    chat_id = parameters.text("chat_id")
    if not chat_id:
        raise bad_request("chat_id is empty")
    if not re.fullmatch(r"-?\d+", chat_id):
        # @channelusername: no chat of this server has a username.
        raise bad_request("chat not found")
    return state.writable_chat(int(chat_id)) if for_writing else state.chat(int(chat_id))


def thread_of(chat: Chat, parameters: Parameters) -> int | None:
    """Return the topic of `message_thread_id`, None for the General topic; raise ApiError."""
    thread = parameters.integer("message_thread_id")
    if not thread:
        return None
    if thread not in chat.topics:
        raise bad_request("message thread not found")
    return thread


def reply_of(state: BotApiState, chat: Chat, parameters: Parameters) -> int | None:
    """Return the id of the message that the new message replies to; raise ApiError."""
    reply = parameters.json_object("reply_parameters")
    message_id = reply.get("message_id") or parameters.integer("reply_to_message_id")
    if not message_id:
        return None
    if not isinstance(message_id, int):
        raise bad_request('can\'t parse ReplyParameters: field "message_id" must be of type Number')
    if state.message(chat.id, message_id) is None:
        if reply.get("allow_sending_without_reply") or parameters.boolean("allow_sending_without_reply"):
            return None
        raise bad_request("message to be replied not found")
    return message_id


def message_of(state: BotApiState, parameters: Parameters, purpose: str) -> tuple[Chat, Message]:
    """Return the message of `message_id`, for `purpose` ("edit", "delete"); raise ApiError."""
    chat = chat_of(state, parameters)
    message_id = parameters.integer("message_id")
    if not message_id:
        raise bad_request("message identifier is not specified")
    message = state.message(chat.id, message_id)
    if message is None:
        raise bad_request(f"message to {purpose} not found")
    return chat, message


def file_of(state: BotApiState, parameters: Parameters, kind: str, value: str | None = None) -> File:
    """Return the file that a parameter uploads, attaches or refers to by file_id; raise ApiError."""
    reference = parameters.text(kind) if value is None else value
    upload = parameters.uploads.get(kind)
    if reference.startswith("attach://"):
        upload = parameters.uploads.get(reference.removeprefix("attach://"))
    elif reference and upload is None:
        stored_file = state.files.get(reference)
        if stored_file is None and reference.startswith(("http://", "https://")):
            raise bad_request("failed to get HTTP URL content")
        if stored_file is None:
            raise bad_request("wrong remote file identifier specified: Wrong string length")
        return stored_file
    if upload is None:
        raise bad_request(f"there is no {kind} in the request")
    return _store_upload(state, upload, kind)


def _store_upload(state: BotApiState, upload: Upload, kind: str) -> File:
    if not upload.data:
        raise bad_request("file must be non-empty")
    if len(upload.data) > (PHOTO_BYTES if kind == "photo" else DOCUMENT_BYTES):
        raise bad_request(f"file of size {len(upload.data)} bytes is too big for a {kind}")
    width, height = _picture_size(upload.data) if kind == "photo" else (0, 0)
    number = state.next_serial()
    file = File(f"AgACAg{number:08d}", f"AQAD{number:06d}", upload.name or "file", upload.data, width, height)
    state.files[file.id] = file
    return file


def _picture_size(picture: bytes) -> tuple[int, int]:
    """Return width and height in pixels of a PNG or JPEG; raise ApiError."""
    width = height = 0
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack(">II", picture[16:24])
    elif picture.startswith(b"\xff\xd8"):
        at = 2
        while at + 9 < len(picture) and not width:
            marker, length = struct.unpack(">HH", picture[at : at + 4])
            if 0xFFC0 <= marker <= 0xFFCF and marker not in {0xFFC4, 0xFFC8, 0xFFCC}:
                height, width = struct.unpack(">HH", picture[at + 5 : at + 9])
            at += 2 + length
    if not width or not height:
        raise bad_request("IMAGE_PROCESS_FAILED")
    if width + height > PHOTO_SIDES or max(width, height) > PHOTO_RATIO * min(width, height):
        raise bad_request("PHOTO_INVALID_DIMENSIONS")
    return width, height

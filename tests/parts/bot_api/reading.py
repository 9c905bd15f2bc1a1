"""Look up what parameters refer to: a chat, a thread, a message, a file."""

from __future__ import annotations

import re
import struct

from tests.parts.bot_api.limits import DOCUMENT_BYTES, PHOTO_BYTES, PHOTO_RATIO, PHOTO_SIDES
from tests.parts.bot_api.parameters import Parameters, Upload
from tests.parts.bot_api.values import Chat, File, Message, bad_request
from tests.parts.bot_api.world import World


def chat_of(world: World, parameters: Parameters, *, writing: bool = False) -> Chat:
    """Return the chat of `chat_id`; raise ApiError."""
    given = parameters.text("chat_id")
    if not given:
        raise bad_request("chat_id is empty")
    if not re.fullmatch(r"-?\d+", given):
        # @channelusername: no chat of this server has a username.
        raise bad_request("chat not found")
    return world.writable(int(given)) if writing else world.chat(int(given))


def thread_of(chat: Chat, parameters: Parameters) -> int | None:
    """Return the topic of `message_thread_id`, None for the General topic; raise ApiError."""
    thread = parameters.integer("message_thread_id")
    if not thread:
        return None
    if thread not in chat.topics:
        raise bad_request("message thread not found")
    return thread


def reply_of(world: World, chat: Chat, parameters: Parameters) -> int | None:
    """Return the id of the message that this one replies to; raise ApiError."""
    reply = parameters.json_object("reply_parameters")
    given = reply.get("message_id") or parameters.integer("reply_to_message_id")
    if not given:
        return None
    if not isinstance(given, int):
        raise bad_request('can\'t parse ReplyParameters: field "message_id" must be of type Number')
    if world.message(chat.id, given) is None:
        if reply.get("allow_sending_without_reply") or parameters.switch("allow_sending_without_reply"):
            return None
        raise bad_request("message to be replied not found")
    return given


def message_of(world: World, parameters: Parameters, purpose: str) -> tuple[Chat, Message]:
    """Return the message of `message_id`, for `purpose` ("edit", "delete"); raise ApiError."""
    chat = chat_of(world, parameters)
    message_id = parameters.integer("message_id")
    if not message_id:
        raise bad_request("message identifier is not specified")
    message = world.message(chat.id, message_id)
    if message is None:
        raise bad_request(f"message to {purpose} not found")
    return chat, message


def file_of(world: World, parameters: Parameters, kind: str, given: str | None = None) -> File:
    """Return the file that a parameter uploads, attaches or refers to by file_id; raise ApiError."""
    reference = parameters.text(kind) if given is None else given
    upload = parameters.uploads.get(kind)
    if reference.startswith("attach://"):
        upload = parameters.uploads.get(reference.removeprefix("attach://"))
    elif reference and upload is None:
        known = world.files.get(reference)
        if known is None and reference.startswith(("http://", "https://")):
            raise bad_request("failed to get HTTP URL content")
        if known is None:
            raise bad_request("wrong remote file identifier specified: Wrong string length")
        return known
    if upload is None:
        raise bad_request(f"there is no {kind} in the request")
    return _kept(world, upload, kind)


def _kept(world: World, upload: Upload, kind: str) -> File:
    if not upload.data:
        raise bad_request("file must be non-empty")
    if len(upload.data) > (PHOTO_BYTES if kind == "photo" else DOCUMENT_BYTES):
        raise bad_request(f"file of size {len(upload.data)} bytes is too big for a {kind}")
    width, height = _size(upload.data) if kind == "photo" else (0, 0)
    number = world.serial()
    file = File(f"AgACAg{number:08d}", f"AQAD{number:06d}", upload.name or "file", upload.data, width, height)
    world.files[file.id] = file
    return file


def _size(picture: bytes) -> tuple[int, int]:
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

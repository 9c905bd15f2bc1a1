"""The limits of the Bot API, documented and assumed."""

from __future__ import annotations

from typing import Final

TEXT_CHARACTERS: Final = 4096
CAPTION_CHARACTERS: Final = 1024
CALLBACK_DATA_BYTES: Final = 64
COPY_TEXT_CHARACTERS: Final = 256
CALLBACK_ANSWER_CHARACTERS: Final = 200
BUTTONS: Final = 100
BUTTONS_PER_ROW: Final = 8
ENTITIES: Final = 100
PHOTO_BYTES: Final = 10 * 1024 * 1024
PHOTO_SIDES: Final = 10_000
PHOTO_RATIO: Final = 20
DOCUMENT_BYTES: Final = 50 * 1024 * 1024
DELETABLE_SECONDS: Final = 48 * 3600
UPDATES_PER_CALL: Final = 100
LONG_POLL_SECONDS: Final = 50
COMMANDS: Final = 100
MESSAGES_PER_DELETE: Final = 100
START_PAYLOAD: Final = r"[A-Za-z0-9_-]{1,64}"

# Assumptions: Telegram documents neither limit. These values are at the low end of the reported values.
BUTTON_URL_CHARACTERS: Final = 2048
CALLBACK_QUERY_SECONDS: Final = 60.0

# https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
CHAT_MESSAGES_PER_SECOND: Final = 1
GROUP_MESSAGES_PER_MINUTE: Final = 20
MESSAGES_PER_SECOND: Final = 30

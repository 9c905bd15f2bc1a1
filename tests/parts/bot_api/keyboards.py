"""`reply_markup`: inline keyboards and their URLs, checked as strictly as by the real server."""

from __future__ import annotations

import json
import re
from typing import cast
from urllib.parse import urlsplit, urlunsplit

from tests.parts.bot_api.limits import (
    BUTTON_URL_CHARACTERS,
    BUTTONS,
    BUTTONS_PER_ROW,
    CALLBACK_DATA_BYTES,
    COPY_TEXT_CHARACTERS,
)
from tests.parts.bot_api.values import Button, Json, Keyboard, bad_request, utf16_length

OTHER_ACTIONS = (
    "web_app",
    "login_url",
    "switch_inline_query",
    "switch_inline_query_current_chat",
    "switch_inline_query_chosen_chat",
    "callback_game",
    "pay",
)
BUTTON_ERROR = "can't parse inline keyboard button"
ACTIONS = ("url", "callback_data", "copy_text", *OTHER_ACTIONS)
OTHER_MARKUPS = ("keyboard", "remove_keyboard", "force_reply")


class InvalidUrl(Exception):
    """An invalid URL. The exception's text is the reason that the real server gives."""


def normalize_url(url: str) -> str:
    """Return a URL as the real server normalizes it; raise InvalidUrl.

    Schemes are http, https and tg; the default is http. A host needs a dot: localhost fails, an IP address
    passes.
    """
    scheme, colon, rest = url.partition("://")
    if not colon and url.lower().startswith("tg:"):
        scheme, colon, rest = "tg", "://", url[3:]
    if not colon:
        scheme, rest = "http", url
    scheme = scheme.lower()
    if scheme not in {"http", "https", "tg"}:
        raise InvalidUrl("Unsupported URL protocol")
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidUrl("Wrong HTTP URL") from None
    if scheme == "tg":
        if port is not None or "@" in parts.netloc or not re.fullmatch(r"[A-Za-z0-9_-]+", host):
            raise InvalidUrl("Wrong tg URL")
        return f"tg://{rest}"
    if not host or re.search(r"[\s\x00-\x20<>\"]", url) or ("." not in host and ":" not in host):
        raise InvalidUrl("Wrong HTTP URL")
    return urlunsplit((scheme, parts.netloc.lower(), parts.path or "/", parts.query, parts.fragment))


def read_keyboard(text: str) -> Keyboard:
    """Read `reply_markup`; return an empty keyboard for other kinds of markup. Raise ApiError."""
    if not text:
        return ()
    try:
        markup = json.loads(text)
    except ValueError:
        raise bad_request("can't parse reply keyboard markup JSON object") from None
    if not isinstance(markup, dict):
        raise bad_request("object expected as reply markup")
    if "inline_keyboard" not in markup:
        if not markup or any(kind in markup for kind in OTHER_MARKUPS):
            return ()
        raise bad_request("can't parse reply keyboard markup JSON object")
    rows = markup["inline_keyboard"]
    if not isinstance(rows, list):
        raise bad_request('field "inline_keyboard" must be of type Array')
    if not all(isinstance(row, list) for row in rows):
        raise bad_request('field "inline_keyboard" of the InlineKeyboardMarkup must be an Array of Arrays')
    keyboard = tuple(tuple(_read_button(button) for button in row) for row in rows if row)
    # Telegram does not document these limits; clients and libraries use them.
    if sum(map(len, keyboard)) > BUTTONS or any(len(row) > BUTTONS_PER_ROW for row in keyboard):
        raise bad_request("reply markup is too long")
    return keyboard


def _read_button(button_json: object) -> Button:
    if not isinstance(button_json, dict):
        raise bad_request(f"{BUTTON_ERROR}: expected an Object")
    button = cast("Json", button_json)
    label = _read_string(button, "text")
    if label is None:
        raise bad_request("can't parse inline keyboard button: Can't find field \"text\"")
    if not label.strip():
        raise bad_request("inline keyboard button text must be non-empty")
    # The real server ignores an empty URL or callback_data, but not an empty inline query.
    empty = {name for name in ("url", "callback_data") if button.get(name) == ""}
    actions = [action for action in ACTIONS if button.get(action) is not None and action not in empty]
    if not actions:
        raise bad_request(f"{BUTTON_ERROR}: Text buttons are unallowed in the inline keyboard")
    if len(actions) > 1:
        # The real server silently uses one of them; its documentation requires exactly one.
        raise bad_request(f"inline keyboard button has more than one action: {', '.join(actions)}")
    if actions[0] in OTHER_ACTIONS:
        return Button(label, other_actions={actions[0]: button[actions[0]]})
    if actions[0] == "url":
        return Button(label, url=_read_url(_read_string(button, "url") or ""))
    if actions[0] == "callback_data":
        return Button(label, callback_data=_check_callback_data(_read_string(button, "callback_data") or ""))
    return Button(label, copy_text=_read_copy_text(button["copy_text"]))


def _read_string(button: Json, name: str) -> str | None:
    value = button.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_request(f'can\'t parse inline keyboard button: Field "{name}" must be of type String')
    return value


def _read_url(url: str) -> str:
    try:
        normalized = normalize_url(url)
    except InvalidUrl as reason:
        raise bad_request(f"inline keyboard button URL '{url}' is invalid: {reason}") from None
    if len(normalized) > BUTTON_URL_CHARACTERS:
        raise bad_request("BUTTON_URL_INVALID")
    return normalized


def _check_callback_data(data: str) -> str:
    if len(data.encode()) > CALLBACK_DATA_BYTES:
        raise bad_request("BUTTON_DATA_INVALID")
    return data


def _read_copy_text(copy_text_json: object) -> str:
    text = copy_text_json.get("text") if isinstance(copy_text_json, dict) else None
    if not isinstance(text, str):
        raise bad_request('can\'t parse inline keyboard button: Field "copy_text" must be of type Object')
    if not 1 <= utf16_length(text) <= COPY_TEXT_CHARACTERS:
        raise bad_request("BUTTON_COPY_TEXT_INVALID")
    return text

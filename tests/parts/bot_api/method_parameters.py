"""The parameters of each method (Bot API 9.x). The real server ignores others; this server records them."""

from __future__ import annotations

_TARGET_PARAMETERS = {"business_connection_id", "chat_id", "message_thread_id", "direct_messages_topic_id"}
_SEND_PARAMETERS = _TARGET_PARAMETERS | {
    "disable_notification",
    "protect_content",
    "allow_paid_broadcast",
    "message_effect_id",
    "suggested_post_parameters",
    "reply_parameters",
    "reply_markup",
    # Older names, which the server still accepts.
    "reply_to_message_id",
    "allow_sending_without_reply",
}
_TEXT_PARAMETERS = {"text", "parse_mode", "entities", "link_preview_options", "disable_web_page_preview"}
_CAPTION_PARAMETERS = {"caption", "parse_mode", "caption_entities", "show_caption_above_media"}
_EDIT_PARAMETERS = {"business_connection_id", "chat_id", "message_id", "inline_message_id", "reply_markup"}
_COMMAND_PARAMETERS = {"scope", "language_code"}

METHOD_PARAMETERS: dict[str, set[str]] = {
    "getMe": set(),
    "getUpdates": {"offset", "limit", "timeout", "allowed_updates"},
    "setWebhook": {
        "url",
        "certificate",
        "ip_address",
        "max_connections",
        "allowed_updates",
        "drop_pending_updates",
        "secret_token",
    },
    "deleteWebhook": {"drop_pending_updates"},
    "getWebhookInfo": set(),
    "setMyCommands": _COMMAND_PARAMETERS | {"commands"},
    "getMyCommands": _COMMAND_PARAMETERS,
    "deleteMyCommands": _COMMAND_PARAMETERS,
    "setMyDescription": {"description", "language_code"},
    "setMyShortDescription": {"short_description", "language_code"},
    "setMyName": {"name", "language_code"},
    "setChatMenuButton": {"chat_id", "menu_button"},
    "sendMessage": _SEND_PARAMETERS | _TEXT_PARAMETERS,
    "sendPhoto": _SEND_PARAMETERS | _CAPTION_PARAMETERS | {"photo", "has_spoiler"},
    "sendDocument": _SEND_PARAMETERS
    | _CAPTION_PARAMETERS
    | {"document", "thumbnail", "disable_content_type_detection"},
    "sendChatAction": {"business_connection_id", "chat_id", "message_thread_id", "action"},
    "setMessageReaction": {"chat_id", "message_id", "reaction", "is_big"},
    "editMessageText": _EDIT_PARAMETERS | _TEXT_PARAMETERS,
    "editMessageCaption": _EDIT_PARAMETERS | _CAPTION_PARAMETERS,
    "editMessageMedia": _EDIT_PARAMETERS | {"media"},
    "editMessageReplyMarkup": _EDIT_PARAMETERS,
    "deleteMessage": {"chat_id", "message_id"},
    "deleteMessages": {"chat_id", "message_ids"},
    "deleteBusinessMessages": {"business_connection_id", "message_ids"},
    "answerCallbackQuery": {"callback_query_id", "text", "show_alert", "url", "cache_time"},
    "getChat": {"chat_id"},
    "getChatMember": {"chat_id", "user_id"},
    "getChatAdministrators": {"chat_id"},
    "getFile": {"file_id"},
    "createForumTopic": {"chat_id", "name", "icon_color", "icon_custom_emoji_id"},
    "editForumTopic": {"chat_id", "message_thread_id", "name", "icon_custom_emoji_id"},
    "sendMessageDraft": {"chat_id", "message_thread_id", "draft_id", "text", "parse_mode", "entities"},
    "logOut": set(),
    "close": set(),
}


def unknown_parameters(method: str, names: list[str]) -> tuple[str, ...]:
    """Return the names that are not parameters of the method."""
    return tuple(name for name in names if name not in METHOD_PARAMETERS[method])

"""A Telegram Bot API server on loopback, as strict as the real one (Bot API 9.x), with simulated users.

    with serve_bot_api() as api:                            # or serve_bot_api(clock=..., rate_limits=True)
        bot = ApplicationBuilder().token(api.token).base_url(api.base_url).base_file_url(api.base_file_url)
        anna = api.add_user(7, "Anna")
        api.start(anna)                                     # she presses Start: the bot gets /start
        message = api.wait(lambda: api.messages(anna)[-1:])[0]
        api.press(anna, message, "Cancel").wait_for_answer()    # `await api.press(...)` in a coroutine
        api.hang_up("sendMessage")                          # a fault: the bot gets no response
        assert api.unknown_parameters == [] and not api.find_everywhere(secret)
        print(api.transcript(anna))                         # the chat as she sees it

The methods are synchronous and may be called from any thread; the server runs in its own thread. `wait`
blocks: in a coroutine, use `await api.until(...)`. As in Telegram, the bot gets from groups only commands,
and replies to its own messages, unless it is an administrator or the server runs with `privacy_mode=False`.
"""

from tests.parts.bot_api.api import BotApi
from tests.parts.bot_api.server import serve_bot_api
from tests.parts.bot_api.state import ButtonPress
from tests.parts.bot_api.values import Button, Call, Chat, Entity, File, Message, User

__all__ = [
    "BotApi",
    "Button",
    "ButtonPress",
    "Call",
    "Chat",
    "Entity",
    "File",
    "Message",
    "User",
    "serve_bot_api",
]

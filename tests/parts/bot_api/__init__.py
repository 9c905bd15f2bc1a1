"""A Telegram Bot API server on loopback, as strict as the real one (Bot API 9.x), and its people.

    with running() as api:                                  # or running(clock=..., rate_limits=True)
        bot = ApplicationBuilder().token(api.token).base_url(api.base_url).base_file_url(api.base_file_url)
        anna = api.user(7, "Anna")
        api.start(anna)                                     # she presses Start: the bot gets /start
        message = api.wait(lambda: api.messages(anna)[-1:])[0]
        api.press(anna, message, "Cancel").answered()       # `await api.press(...)` in a coroutine
        api.hang_up("sendMessage")                          # trouble: the bot never learns that it was sent
        assert api.unknown_parameters == [] and not api.anywhere(secret)
        print(api.transcript(anna))                         # the chat, as she sees it

Every person's method is plain and may be called from any thread; the server runs in a thread of its own.
`wait` blocks: in a coroutine write `await api.until(...)`. Groups hide from the bot what is neither a command
nor a reply to it, as Telegram does, unless the bot is an administrator or `running(privacy_mode=False)`.
"""

from tests.parts.bot_api.api import BotApi
from tests.parts.bot_api.server import running
from tests.parts.bot_api.values import Button, Call, Chat, Entity, File, Message, User
from tests.parts.bot_api.world import Pressed

__all__ = ["BotApi", "Button", "Call", "Chat", "Entity", "File", "Message", "Pressed", "User", "running"]

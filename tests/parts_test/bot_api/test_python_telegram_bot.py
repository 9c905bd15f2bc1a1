"""The Bot API endpoint with the real python-telegram-bot."""

from __future__ import annotations

import asyncio

import pytest
from telegram import Bot, InputMediaPhoto, ReplyParameters
from telegram.error import BadRequest, Forbidden

from tests.parts.bot_api import BotApi, User, serve_bot_api
from tests.parts_test.sample_bot import catch_error, qr_png, run_polling_bot, run_with_bot
from tests.qr_codes import scan_qr_code


@pytest.fixture
def anna(api: BotApi) -> User:
    return api.add_user(7, "Anna", "anna_k")


def test_bot_and_user_exchange_messages_and_button_presses(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with run_polling_bot(api):
            api.start(anna)
            prompt = (await api.until(lambda: [m for m in api.messages(anna) if m.is_from_bot]))[0]
            assert [(entity.type, prompt.entity_text(entity)) for entity in prompt.entities] == [
                ("bold", "Connect")
            ]
            assert api.button_url(prompt, "Open the page") == "https://as.example/authorize"
            assert api.copied_text(prompt, "Copy") == "WDJB-MJHT"
            assert prompt.previews_disabled
            assert (await api.press(anna, prompt, "Cancel")).text == "Cancelled"
            api.say(anna, "http://127.0.0.1:8765/callback?code=pasted-code&state=x")
            await api.until(lambda: [m for m in api.messages(anna) if m.photo])

    asyncio.run(chat())
    assert api.transcript(anna) == (
        "── Anna ──\n\nAnna:\n  /start\n\nHermes:\n  Cancelled.\n\nHermes:\n  (picture)\n  Scan this\n"
    )
    [pasted] = api.deleted_messages(anna)
    assert "pasted-code" in pasted.text
    assert api.calls_containing("pasted-code") == []
    assert api.messages_containing("pasted-code") == []
    assert api.find_everywhere("pasted-code")
    assert api.unknown_parameters == []
    picture = api.messages(anna)[-1].photo
    assert picture
    assert scan_qr_code(picture.data) == "https://as.example"


def test_transcript_shows_the_buttons(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with run_polling_bot(api):
            api.start(anna)
            await api.until(lambda: len(api.messages(anna)) == 2)

    asyncio.run(chat())
    assert api.transcript(anna).endswith(
        "Hermes:\n  **Connect** linear\n  [Open the page ↗]\n  [Cancel] [Copy ⧉]\n"
    )


def test_privacy_mode_shows_the_bot_only_commands_and_replies(api: BotApi, anna: User) -> None:
    group = api.add_group(-1001, "Team", [anna])
    forum = api.add_group(-1002, "Forum", [anna], forum=True, bot_can_delete=True)
    topic = api.add_topic(forum, "Logins")

    async def chat() -> None:
        async with run_polling_bot(api):
            api.say(anna, "not for a bot", group)
            api.say(anna, "/connect@another_bot", group)
            api.say(anna, f"/connect@{api.bot.username} linear", group)
            prompt = (await api.until(lambda: [m for m in api.messages(group) if m.is_from_bot]))[0]
            api.say(anna, "a reply", group, reply_to=prompt)
            await api.until(lambda: api.deleted_messages(group) or api.calls_of("deleteMessage"))
            # An administrator gets all messages.
            api.say(anna, "in a topic", forum, thread=topic)
            await api.until(lambda: api.deleted_messages(forum))

    asyncio.run(chat())
    assert [message.text for message in api.messages(group)][:3] == [
        "not for a bot",
        "/connect@another_bot",
        f"/connect@{api.bot.username} linear",
    ]
    assert api.calls_of("deleteMessage")[0].description == "Bad Request: message can't be deleted"
    assert [message.text for message in api.deleted_messages(forum)] == ["in a topic"]


def test_bot_gets_all_group_messages_without_privacy_mode(anna: User) -> None:
    with serve_bot_api(privacy_mode=False) as api:
        anna = api.add_user(7, "Anna")
        group = api.add_group(-1001, "Team", [anna])
        api.say(anna, "hello", group)

        async def read_update(bot: Bot) -> None:
            [update] = await bot.get_updates()
            assert update.message
            assert (update.message.text, update.message.chat.id) == ("hello", -1001)

        run_with_bot(api, read_update)


def test_offset_confirms_updates_and_allowed_updates_filters_them(api: BotApi, anna: User) -> None:
    async def read(bot: Bot) -> None:
        api.start(anna)
        messages = [api.say(anna, text) for text in "abc"]
        first = await bot.get_updates(limit=2)
        assert [update.message.text for update in first if update.message] == ["/start", "a"]
        assert len(await bot.get_updates()) == 4
        rest = await bot.get_updates(offset=first[-1].update_id + 1)
        assert [update.message.text for update in rest if update.message] == ["b", "c"]
        [last] = await bot.get_updates(offset=-1)
        assert await bot.get_updates(offset=last.update_id + 1, allowed_updates=["callback_query"]) == ()
        api.edit(anna, messages[0], "d")
        assert await bot.get_updates(allowed_updates=[]) == ()
        api.edit(anna, messages[0], "e")
        api.block(anna)
        edited, blocked = await bot.get_updates()
        assert edited.edited_message
        assert edited.edited_message.text == "e"
        assert blocked.my_chat_member
        assert blocked.my_chat_member.new_chat_member.status == "kicked"
        error = await catch_error(Forbidden, bot.send_message(7, "x"))
        assert error.message == "Forbidden: bot was blocked by the user"

    run_with_bot(api, read)


def test_pictures_are_stored_edited_and_downloaded(api: BotApi, anna: User) -> None:
    async def send(bot: Bot) -> None:
        api.start(anna)
        sent = await bot.send_photo(7, qr_png("one"), caption="*one*", parse_mode="MarkdownV2")
        again = await bot.send_photo(7, sent.photo[-1].file_id)
        assert bytes(await (await bot.get_file(again.photo[-1])).download_as_bytearray()) == qr_png("one")
        await bot.edit_message_caption(7, sent.message_id, caption="two")
        await bot.edit_message_media(InputMediaPhoto(qr_png("two"), caption="three"), 7, sent.message_id)
        await bot.send_document(7, b"{}", filename="log.json")
        assert (
            await catch_error(BadRequest, bot.send_photo(7, b"no picture"))
        ).message == "Image_process_failed"
        await catch_error(BadRequest, bot.edit_message_text("x", 7, sent.message_id))
        await catch_error(BadRequest, bot.send_photo(7, qr_png("x"), caption="x" * 1025))

    run_with_bot(api, send)
    first, _, document = api.messages(anna)[1:]
    assert [version.text for version in api.versions(first)] == ["one", "two", "three"]
    assert first.photo
    assert first.photo.data == qr_png("two")
    assert document.document
    assert document.document.data == b"{}"
    assert api.unknown_parameters == []


def test_methods_that_bots_call_at_startup_work(api: BotApi, anna: User) -> None:
    async def call_methods(bot: Bot) -> None:
        api.start(anna)
        await bot.set_my_commands([("connect", "Connect a server")])
        assert [command.command for command in await bot.get_my_commands()] == ["connect"]
        await bot.delete_my_commands()
        await bot.set_my_short_description("Logs in")
        assert (await bot.get_chat(7)).first_name == "Anna"
        assert (await bot.get_chat_member(7, 7)).status == "member"
        await bot.send_chat_action(7, "typing")
        sent = await bot.send_message(
            7, "x", reply_parameters=ReplyParameters(1, allow_sending_without_reply=True)
        )
        await bot.set_message_reaction(7, sent.message_id, "👍")
        await bot.delete_messages(7, [sent.message_id])
        assert (await bot.get_webhook_info()).url == ""

    run_with_bot(api, call_methods)
    assert api.unknown_parameters == []


def test_the_token_is_not_recorded(api: BotApi, anna: User) -> None:
    async def send_message(bot: Bot) -> None:
        api.start(anna)
        await bot.send_message(7, "x")

    run_with_bot(api, send_message)
    assert api.find_everywhere(api.token.partition(":")[2]) == []
    assert api.token.partition(":")[2] not in repr(api.calls)

"""The Bot API endpoint with the real python-telegram-bot."""

from __future__ import annotations

import asyncio
import io

import pytest
import zxingcpp
from PIL import Image
from telegram import Bot, InputMediaPhoto, ReplyParameters
from telegram.error import BadRequest, Forbidden

from tests.parts.bot_api import BotApi, User, running
from tests.parts_test.bots import polling, qr, raises, with_bot


@pytest.fixture
def anna(api: BotApi) -> User:
    return api.user(7, "Anna", "anna_k")


def test_a_whole_chat(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with polling(api):
            api.start(anna)
            shown = (await api.until(lambda: [m for m in api.messages(anna) if m.from_bot]))[0]
            assert [(entity.type, shown.part(entity)) for entity in shown.entities] == [("bold", "Connect")]
            assert api.url_of(shown, "Open the page") == "https://as.example/authorize"
            assert api.copied_from(shown, "Copy") == "WDJB-MJHT"
            assert shown.previews_disabled
            assert (await api.press(anna, shown, "Cancel")).text == "Cancelled"
            api.say(anna, "http://127.0.0.1:8765/callback?code=pasted-code&state=x")
            await api.until(lambda: [m for m in api.messages(anna) if m.photo])

    asyncio.run(chat())
    assert api.transcript(anna) == (
        "── Anna ──\n\nAnna:\n  /start\n\nHermes:\n  Cancelled.\n\nHermes:\n  (picture)\n  Scan this\n"
    )
    [pasted] = api.deleted(anna)
    assert "pasted-code" in pasted.text
    assert api.sent("pasted-code") == []
    assert api.visible("pasted-code") == []
    assert api.anywhere("pasted-code")
    assert api.unknown_parameters == []
    picture = api.messages(anna)[-1].photo
    assert picture
    assert zxingcpp.read_barcodes(Image.open(io.BytesIO(picture.data)))[0].text == "https://as.example"


def test_the_buttons_are_drawn(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with polling(api):
            api.start(anna)
            await api.until(lambda: len(api.messages(anna)) == 2)

    asyncio.run(chat())
    assert api.transcript(anna).endswith(
        "Hermes:\n  Connect linear\n  [Open the page ↗]\n  [Cancel] [Copy ⧉]\n"
    )


def test_a_group_shows_the_bot_commands_and_replies_only(api: BotApi, anna: User) -> None:
    group = api.group(-1001, "Team", [anna])
    forum = api.group(-1002, "Forum", [anna], forum=True, bot_can_delete=True)
    topic = api.topic(forum, "Logins")

    async def chat() -> None:
        async with polling(api):
            api.say(anna, "not for a bot", group)
            api.say(anna, "/connect@another_bot", group)
            api.say(anna, f"/connect@{api.bot.username} linear", group)
            shown = (await api.until(lambda: [m for m in api.messages(group) if m.from_bot]))[0]
            api.say(anna, "a reply", group, reply_to=shown)
            await api.until(lambda: api.deleted(group) or api.calls_of("deleteMessage"))
            # An administrator gets all messages.
            api.say(anna, "in a topic", forum, thread=topic)
            await api.until(lambda: api.deleted(forum))

    asyncio.run(chat())
    assert [message.text for message in api.messages(group)][:3] == [
        "not for a bot",
        "/connect@another_bot",
        f"/connect@{api.bot.username} linear",
    ]
    assert api.calls_of("deleteMessage")[0].description == "Bad Request: message can't be deleted"
    assert [message.text for message in api.deleted(forum)] == ["in a topic"]


def test_without_privacy_mode_a_group_shows_everything(anna: User) -> None:
    with running(privacy_mode=False) as api:
        anna = api.user(7, "Anna")
        group = api.group(-1001, "Team", [anna])
        api.say(anna, "hello", group)

        async def hear(one: Bot) -> None:
            [update] = await one.get_updates()
            assert update.message
            assert (update.message.text, update.message.chat.id) == ("hello", -1001)

        with_bot(api, hear)


def test_updates_are_confirmed_by_the_next_offset_and_filtered(api: BotApi, anna: User) -> None:
    async def read(one: Bot) -> None:
        api.start(anna)
        said = [api.say(anna, text) for text in "abc"]
        first = await one.get_updates(limit=2)
        assert [update.message.text for update in first if update.message] == ["/start", "a"]
        assert len(await one.get_updates()) == 4
        rest = await one.get_updates(offset=first[-1].update_id + 1)
        assert [update.message.text for update in rest if update.message] == ["b", "c"]
        [last] = await one.get_updates(offset=-1)
        assert await one.get_updates(offset=last.update_id + 1, allowed_updates=["callback_query"]) == ()
        api.edit(anna, said[0], "d")
        assert await one.get_updates(allowed_updates=[]) == ()
        api.edit(anna, said[0], "e")
        api.block(anna)
        edited, blocked = await one.get_updates()
        assert edited.edited_message
        assert edited.edited_message.text == "e"
        assert blocked.my_chat_member
        assert blocked.my_chat_member.new_chat_member.status == "kicked"
        gone = await raises(Forbidden, one.send_message(7, "x"))
        assert gone.message == "Forbidden: bot was blocked by the user"

    with_bot(api, read)


def test_pictures_are_kept_changed_and_fetched(api: BotApi, anna: User) -> None:
    async def send(one: Bot) -> None:
        api.start(anna)
        sent = await one.send_photo(7, qr("one"), caption="*one*", parse_mode="MarkdownV2")
        again = await one.send_photo(7, sent.photo[-1].file_id)
        assert bytes(await (await one.get_file(again.photo[-1])).download_as_bytearray()) == qr("one")
        await one.edit_message_caption(7, sent.message_id, caption="two")
        await one.edit_message_media(InputMediaPhoto(qr("two"), caption="three"), 7, sent.message_id)
        await one.send_document(7, b"{}", filename="log.json")
        assert (await raises(BadRequest, one.send_photo(7, b"no picture"))).message == "Image_process_failed"
        await raises(BadRequest, one.edit_message_text("x", 7, sent.message_id))
        await raises(BadRequest, one.send_photo(7, qr("x"), caption="x" * 1025))

    with_bot(api, send)
    first, _, document = api.messages(anna)[1:]
    assert [version.text for version in api.versions(first)] == ["one", "two", "three"]
    assert first.photo
    assert first.photo.data == qr("two")
    assert document.document
    assert document.document.data == b"{}"
    assert api.unknown_parameters == []


def test_what_a_bot_calls_at_its_start_is_there(api: BotApi, anna: User) -> None:
    async def call(one: Bot) -> None:
        api.start(anna)
        await one.set_my_commands([("connect", "Connect a server")])
        assert [command.command for command in await one.get_my_commands()] == ["connect"]
        await one.delete_my_commands()
        await one.set_my_short_description("Logs in")
        assert (await one.get_chat(7)).first_name == "Anna"
        assert (await one.get_chat_member(7, 7)).status == "member"
        await one.send_chat_action(7, "typing")
        sent = await one.send_message(
            7, "x", reply_parameters=ReplyParameters(1, allow_sending_without_reply=True)
        )
        await one.set_message_reaction(7, sent.message_id, "👍")
        await one.delete_messages(7, [sent.message_id])
        assert (await one.get_webhook_info()).url == ""

    with_bot(api, call)
    assert api.unknown_parameters == []


def test_the_token_is_not_recorded(api: BotApi, anna: User) -> None:
    async def call(one: Bot) -> None:
        api.start(anna)
        await one.send_message(7, "x")

    with_bot(api, call)
    assert api.anywhere(api.token.partition(":")[2]) == []
    assert api.token.partition(":")[2] not in repr(api.calls)

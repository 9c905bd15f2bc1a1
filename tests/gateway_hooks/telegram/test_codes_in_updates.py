"""If any field of an update has a code, the code finishes its login or is deleted. No handler gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

import pytest
from telegram import Update

from gateway_hooks.telegram.texts import collect_texts
from gateway_hooks.telegram.updates import parse_other_update
from tests.cli.bot_process import without_mark
from tests.gateway_hooks.telegram.environment import TelegramEnvironment, wait_until
from tests.gateway_hooks.telegram.test_application import HostHandlers, running_application
from tests.parts.bot_api import BotApi, Message, User
from tests.requirements import covers

pytestmark = pytest.mark.slow

Send = Callable[[BotApi, User, str], object]
OTHER_BOT = User(999, "Bridge", "bridge_bot", is_bot=True)
# An answer that no login waits for.
UNMATCHED_ANSWER_URL = "http://localhost:3000/callback?code=a-loose-code&state=of-no-login"
OTHER_SITE_URL = "https://site.example/done?code=a-code-of-theirs&state=of-theirs"


def add_unseen_message(api: BotApi, user: User, text: str) -> Message:
    """Add a message that the bot did not get because it did not run."""
    chat = api.private_chat(user)
    return api.state.add_message(chat, Message(chat.id, 0, user, api.state.clock(), text))


OWN_MESSAGE_SENDERS: dict[str, Send] = {
    "a link": lambda api, anna, url: api.send(anna, text="it is here", links=[("here", url)]),
    "a link of a caption": lambda api, anna, url: api.send(
        anna, text="see here", links=[("here", url)], file=("notes.txt", b"nothing")
    ),
    "a link after a command": lambda api, anna, url: api.send(
        anna, text="/connect this", links=[("this", url)]
    ),
    "a contact": lambda api, anna, url: api.send_contact(anna, "Bob", f"BEGIN:VCARD\nURL:{url}\nEND:VCARD"),
    "a poll": lambda api, anna, url: api.send_poll(anna, url, ["yes", "no"]),
    "a file's name": lambda api, anna, url: api.send(anna, file=(url.partition("/callback")[2], b"nothing")),
    "a preview": lambda api, anna, url: api.send(
        anna, text="look", extra_members={"link_preview_options": {"url": url}}
    ),
    "a web app": lambda api, anna, url: api.send(
        anna, extra_members={"web_app_data": {"data": url, "button_text": "Send"}}
    ),
    "a venue": lambda api, anna, url: api.send(
        anna,
        extra_members={
            "venue": {"location": {"latitude": 1.5, "longitude": 1.5}, "title": "x", "address": url}
        },
    ),
    "a field that the library does not know": lambda api, anna, url: api.send(
        anna, text="look", extra_members={"a_later_member": {"inside": [url]}}
    ),
}


@covers("telegram-agent-blind", "telegram-deleted")
@pytest.mark.parametrize("sender_name", OWN_MESSAGE_SENDERS)
def test_code_in_any_field_of_own_message_finishes_login(
    env: TelegramEnvironment, anna: User, sender_name: str
) -> None:
    api, host = env.api, HostHandlers()

    async def send_answer() -> None:
        async with running_application(env, host):
            answer = await env.approve_login(await env.request_prompt(anna))
            OWN_MESSAGE_SENDERS[sender_name](api, anna, answer)
            await env.wait_for_message(anna, "notes: connected")
            api.say(anna, "hello")
            await wait_until(lambda: "hello" in host.texts)
        assert host.texts == ["hello"]
        assert not host.has_received(query_parameter(answer, "code"))
        env.check_no_secrets()

    asyncio.run(send_answer())


QUOTE_SENDERS: dict[str, Send] = {
    "a quote": lambda api, anna, url: api.send(
        anna,
        text="right?",
        extra_members={
            "quote": {
                "text": "here",
                "position": 0,
                "entities": [{"type": "text_link", "offset": 0, "length": 4, "url": url}],
            }
        },
    ),
    "a reply": lambda api, anna, url: api.send(
        anna, text="right?", reply_to=add_unseen_message(api, anna, url)
    ),
    "a pinned message": lambda api, anna, url: api.pin(anna, add_unseen_message(api, anna, url)),
    "a reply from elsewhere": lambda api, anna, url: api.send(
        anna,
        text="right?",
        extra_members={
            "external_reply": {
                "origin": {"type": "hidden_user", "sender_user_name": "Eve", "date": 1},
                "link_preview_options": {"url": url},
            }
        },
    ),
}


@covers("telegram-agent-blind", "telegram-deleted")
@pytest.mark.parametrize("sender_name", QUOTE_SENDERS)
def test_code_in_quote_or_reply_is_deleted_and_finishes_nothing(
    env: TelegramEnvironment, anna: User, sender_name: str
) -> None:
    api, host = env.api, HostHandlers()

    async def send_quote() -> None:
        async with running_application(env, host):
            answer = await env.approve_login(await env.request_prompt(anna))
            QUOTE_SENDERS[sender_name](api, anna, answer)
            await env.wait_for_message(anna, "None of your logins waits for this answer")
            api.say(anna, "hello")
            await wait_until(lambda: "hello" in host.texts)
        assert host.texts == ["hello"]
        assert not host.has_received(query_parameter(answer, "code"))
        assert api.messages_containing(query_parameter(answer, "code")) == []
        assert env.waiting_login().status == "waiting"

    asyncio.run(send_quote())


@covers("telegram-agent-blind", "telegram-people")
@pytest.mark.parametrize(
    "delivery", ["another bot", "a post", "an edited post", "a query", "a chosen result"]
)
def test_code_without_user_is_deleted_without_reply(
    env: TelegramEnvironment, anna: User, delivery: str
) -> None:
    api, host = env.api, HostHandlers()
    group = api.add_group(-1001, "Team", [anna], bot_can_delete=True)
    news = api.add_channel(-1005, "News")

    async def send_code() -> None:
        async with running_application(env, host):
            answer = await env.approve_login(await env.request_prompt(anna))
            texts_before = env.bot_texts(anna)
            if delivery == "another bot":
                api.send(OTHER_BOT, group, text=f"Anna wrote: {answer}")
            elif delivery == "a post":
                api.post_to_channel(anna, news, answer)
            elif delivery == "an edited post":
                post = api.post_to_channel(anna, news, "wait")
                await wait_until(lambda: host.texts == ["wait"])
                host.texts.clear()
                edited = api.state.replace_message(with_text(post, answer))
                api.state.push("edited_channel_post", api.state.message_json(edited))
            elif delivery == "a query":
                api.send_inline_query(anna, answer)
            else:
                api.choose_result(anna, answer)
            api.say(anna, "hello")
            await wait_until(lambda: "hello" in host.texts)
            await api.until(lambda: api.messages_containing(query_parameter(answer, "code")) == [])
        assert host.texts == ["hello"]
        assert not host.has_received(query_parameter(answer, "code"))
        assert (env.bot_texts(anna), env.bot_texts(group)) == (texts_before, [])
        assert env.waiting_login().status == "waiting"

    asyncio.run(send_code())


@covers("telegram-agent-blind", "chat-exposed")
@pytest.mark.parametrize("can_delete", [True, False], ids=["may delete", "may not delete"])
@pytest.mark.parametrize("is_edited", [False, True], ids=["written", "edited"])
def test_code_in_business_chat_cancels_login_and_warns_in_private(
    env: TelegramEnvironment, anna: User, *, is_edited: bool, can_delete: bool
) -> None:
    api, host = env.api, HostHandlers()
    customer = User(77, "Customer")

    async def send_code() -> None:
        async with running_application(env, host):
            business = api.connect_business(anna, can_delete=can_delete)
            answer = await env.approve_login(await env.request_prompt(anna))
            first = env.waiting_login()
            message_id_to_edit = None
            if is_edited:
                message_id_to_edit = api.write_in_business(business, anna, customer, "wait")
                await wait_until(lambda: host.texts == ["wait"])
                host.texts.clear()
            answer_id = api.write_in_business(business, anna, customer, answer, edits=message_id_to_edit)
            warning = await env.wait_for_message(anna, "Do not post codes in a group")
            assert ("I may not delete messages here" in warning.text) is not can_delete
            assert (answer_id in business.deleted) is can_delete
            # The bot searches the customer's messages and does not reply to them.
            customer_answer_id = api.write_in_business(business, customer, customer, UNMATCHED_ANSWER_URL)
            api.write_in_business(business, customer, customer, "good morning")
            await wait_until(lambda: "good morning" in host.texts)
            await api.until(lambda: (customer_answer_id in business.deleted) is can_delete)
        assert host.texts == ["good morning"]
        assert not host.has_received(query_parameter(answer, "code"))
        assert not host.has_received("a-loose-code")
        assert env.waiting_login().id != first.id
        assert {call.parameters["chat_id"] for call in api.calls_of("sendMessage")} == {str(anna.id)}
        assert api.unknown_parameters == []

    asyncio.run(send_code())


MANGLINGS: dict[str, Callable[[str], str]] = {
    "unchanged": str,
    "angle brackets": "<{}>".format,
    "markdown": "[the page]({})".format,
    "in a sentence": "I end at {}, is that right?".format,
    "without its scheme": lambda url: url.removeprefix("http://"),
    "percent-encoded": lambda url: quote(url, safe=""),
    "in another address": lambda url: f"https://out.example/?to={quote(url, safe='')}",
    "a line break": lambda url: f"{url[:30]}\n{url[30:]}",
    "zero-width spaces": "\u200b".join,
    "escaped": lambda url: url.replace("=", "\\=").replace("?", "\\?"),
    "json": lambda url: url.replace("&", "\\u0026"),
}


@covers("telegram-agent-blind", "chat-ours", "paste-mangled")
@pytest.mark.parametrize("is_private", [True, False], ids=["private", "group"])
def test_redirect_is_claimed_without_waiting_login(
    env: TelegramEnvironment, anna: User, *, is_private: bool
) -> None:
    api, host = env.api, HostHandlers()
    group = api.add_group(-1001, "Team", [anna], bot_can_delete=True)
    chat = api.private_chat(anna) if is_private else group

    async def send_redirects() -> None:
        async with running_application(env, host):
            for mangled in MANGLINGS.values():
                api.say(anna, mangled(UNMATCHED_ANSWER_URL), chat)
            # The bot does not claim URLs of other sites.
            for mangled in MANGLINGS.values():
                api.say(anna, mangled(OTHER_SITE_URL), chat)
            await wait_until(lambda: len(host.texts) == len(MANGLINGS))
            await api.until(lambda: len(api.deleted_messages(chat)) == len(MANGLINGS))
        assert host.texts == [mangled(OTHER_SITE_URL).strip() for mangled in MANGLINGS.values()]
        assert not host.has_received("a-loose-code")
        title = "None of your logins waits for this answer" if is_private else "Do not post codes in a group"
        assert {bot_text.partition("\n")[0] for bot_text in map(without_mark, env.bot_texts(chat))} == {title}

    asyncio.run(send_redirects())


@covers("telegram-people")
def test_names_are_not_searched() -> None:
    user = {"id": 7, "is_bot": False, "first_name": UNMATCHED_ANSWER_URL, "last_name": "x"}
    group = {"id": -1001, "type": "supergroup", "title": UNMATCHED_ANSWER_URL}
    message = {
        "message_id": 5,
        "date": 1,
        "chat": group,
        "from": user,
        "text": "hello",
        "author_signature": UNMATCHED_ANSWER_URL,
    }
    update = Update.de_json({"update_id": 1, "message": {**message, "reply_to_message": message}})
    assert collect_texts(update, "900", "hello").own_texts == ()
    assert parse_other_update(update, "900") is None


@covers("linear", "telegram-agent-blind")
def test_searched_text_of_update_is_limited() -> None:
    entities = [
        {"type": "text_link", "offset": 0, "length": 1, "url": f"http://127.0.0.1/?{number}?code=" * 30}
        for number in range(2000)
    ]
    message = {
        "message_id": 5,
        "date": 1,
        "chat": {"id": 7, "type": "private"},
        "from": {"id": 7, "is_bot": False, "first_name": "Anna"},
        "text": "x",
        "entities": entities,
    }
    texts = collect_texts(Update.de_json({"update_id": 1, "message": message}), "900")
    assert 0 < sum(map(len, texts.own_texts)) <= 500_000


def query_parameter(address: str, name: str) -> str:
    return address.partition(f"{name}=")[2].partition("&")[0]


def with_text(message: Message, text: str) -> Message:
    from dataclasses import replace

    return replace(message, text=text)

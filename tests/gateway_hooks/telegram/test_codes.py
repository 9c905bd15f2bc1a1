"""A code in any field of an update finishes its login or is deleted. No handler gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

import pytest
from telegram import Update

from gateway_hooks.telegram.texts import collect_texts
from gateway_hooks.telegram.updates import parse_other_update
from tests.gateway_hooks.telegram.given import Scene, eventually
from tests.gateway_hooks.telegram.test_application import Host, hosted
from tests.parts.bot_api import BotApi, Message, User
from tests.requirements import covers

pytestmark = pytest.mark.slow

Send = Callable[[BotApi, User, str], object]
OTHER_BOT = User(999, "Bridge", "bridge_bot", is_bot=True)
# No login waits for this answer.
LOOSE = "http://localhost:3000/callback?code=a-loose-code&state=of-no-login"
ELSEWHERE = "https://site.example/done?code=a-code-of-theirs&state=of-theirs"


def unseen(api: BotApi, user: User, text: str) -> Message:
    """Add a message that the bot did not get because it did not run."""
    chat = api.private(user)
    return api.world.add(chat, Message(chat.id, 0, user, api.world.clock(), text))


ANSWERS: dict[str, Send] = {
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
        anna, text="look", more={"link_preview_options": {"url": url}}
    ),
    "a web app": lambda api, anna, url: api.send(
        anna, more={"web_app_data": {"data": url, "button_text": "Send"}}
    ),
    "a venue": lambda api, anna, url: api.send(
        anna, more={"venue": {"location": {"latitude": 1.5, "longitude": 1.5}, "title": "x", "address": url}}
    ),
    "a field that the library does not know": lambda api, anna, url: api.send(
        anna, text="look", more={"a_later_member": {"inside": [url]}}
    ),
}


@covers("telegram-agent-blind", "telegram-deleted")
@pytest.mark.parametrize("way", ANSWERS)
def test_a_code_in_any_member_of_ones_own_message_finishes_the_login(
    scene: Scene, anna: User, way: str
) -> None:
    api, host = scene.api, Host()

    async def story() -> None:
        async with hosted(scene, host):
            answer = await scene.approved(await scene.prompt(anna))
            ANSWERS[way](api, anna, answer)
            await scene.shown(anna, "notes: connected")
            api.say(anna, "hello")
            await eventually(lambda: "hello" in host.heard)
        assert host.heard == ["hello"]
        assert not host.saw(parameter(answer, "code"))
        scene.check()

    asyncio.run(story())


SHOWN: dict[str, Send] = {
    "a quote": lambda api, anna, url: api.send(
        anna,
        text="right?",
        more={
            "quote": {
                "text": "here",
                "position": 0,
                "entities": [{"type": "text_link", "offset": 0, "length": 4, "url": url}],
            }
        },
    ),
    "a reply": lambda api, anna, url: api.send(anna, text="right?", reply_to=unseen(api, anna, url)),
    "a pinned message": lambda api, anna, url: api.pin(anna, unseen(api, anna, url)),
    "a reply from elsewhere": lambda api, anna, url: api.send(
        anna,
        text="right?",
        more={
            "external_reply": {
                "origin": {"type": "hidden_user", "sender_user_name": "Eve", "date": 1},
                "link_preview_options": {"url": url},
            }
        },
    ),
}


@covers("telegram-agent-blind", "telegram-deleted")
@pytest.mark.parametrize("way", SHOWN)
def test_a_code_that_is_shown_along_finishes_nothing_and_goes(scene: Scene, anna: User, way: str) -> None:
    api, host = scene.api, Host()

    async def story() -> None:
        async with hosted(scene, host):
            answer = await scene.approved(await scene.prompt(anna))
            SHOWN[way](api, anna, answer)
            await scene.shown(anna, "No login of yours waits for this answer")
            api.say(anna, "hello")
            await eventually(lambda: "hello" in host.heard)
        assert host.heard == ["hello"]
        assert not host.saw(parameter(answer, "code"))
        assert api.visible(parameter(answer, "code")) == []
        assert scene.login().status == "waiting"

    asyncio.run(story())


@covers("telegram-agent-blind", "telegram-people")
@pytest.mark.parametrize("way", ["another bot", "a post", "an edited post", "a query", "a chosen result"])
def test_a_code_that_no_person_sends_to_the_bot_goes_without_a_word(
    scene: Scene, anna: User, way: str
) -> None:
    api, host = scene.api, Host()
    group = api.group(-1001, "Team", [anna], bot_can_delete=True)
    news = api.channel(-1005, "News")

    async def story() -> None:
        async with hosted(scene, host):
            answer = await scene.approved(await scene.prompt(anna))
            before = scene.texts(anna)
            if way == "another bot":
                api.send(OTHER_BOT, group, text=f"Anna wrote: {answer}")
            elif way == "a post":
                api.post(anna, news, answer)
            elif way == "an edited post":
                post = api.post(anna, news, "wait")
                await eventually(lambda: host.heard == ["wait"])
                host.heard.clear()
                edited = api.world.edit(replace_text(post, answer))
                api.world.push("edited_channel_post", api.world.message_json(edited))
            elif way == "a query":
                api.query(anna, answer)
            else:
                api.choose_result(anna, answer)
            api.say(anna, "hello")
            await eventually(lambda: "hello" in host.heard)
            await api.until(lambda: api.visible(parameter(answer, "code")) == [])
        assert host.heard == ["hello"]
        assert not host.saw(parameter(answer, "code"))
        assert (scene.texts(anna), scene.texts(group)) == (before, [])
        assert scene.login().status == "waiting"

    asyncio.run(story())


@covers("telegram-agent-blind", "chat-exposed")
@pytest.mark.parametrize("can_delete", [True, False], ids=["may delete", "may not delete"])
@pytest.mark.parametrize("is_edited", [False, True], ids=["written", "edited"])
def test_a_code_in_a_business_chat_ends_its_login_and_is_told_in_private(
    scene: Scene, anna: User, *, is_edited: bool, can_delete: bool
) -> None:
    api, host = scene.api, Host()
    customer = User(77, "Customer")

    async def story() -> None:
        async with hosted(scene, host):
            business = api.connect_business(anna, can_delete=can_delete)
            answer = await scene.approved(await scene.prompt(anna))
            first = scene.login()
            written = None
            if is_edited:
                written = api.write_in_business(business, anna, customer, "wait")
                await eventually(lambda: host.heard == ["wait"])
                host.heard.clear()
            number = api.write_in_business(business, anna, customer, answer, edits=written)
            told = await scene.shown(anna, "Do not post codes in a group")
            assert ("I may not delete messages here" in told.text) is not can_delete
            assert (number in business.deleted) is can_delete
            # The bot searches the customer's messages and does not reply to them.
            theirs = api.write_in_business(business, customer, customer, LOOSE)
            api.write_in_business(business, customer, customer, "good morning")
            await eventually(lambda: "good morning" in host.heard)
            await api.until(lambda: (theirs in business.deleted) is can_delete)
        assert host.heard == ["good morning"]
        assert not host.saw(parameter(answer, "code"))
        assert not host.saw("a-loose-code")
        assert scene.login().id != first.id
        assert {call.parameters["chat_id"] for call in api.calls_of("sendMessage")} == {str(anna.id)}
        assert api.unknown_parameters == []

    asyncio.run(story())


MANGLED: dict[str, Callable[[str], str]] = {
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
def test_an_address_of_a_redirect_goes_on_to_nobody_though_no_login_waits(
    scene: Scene, anna: User, *, is_private: bool
) -> None:
    api, host = scene.api, Host()
    group = api.group(-1001, "Team", [anna], bot_can_delete=True)
    where = api.private(anna) if is_private else group

    async def story() -> None:
        async with hosted(scene, host):
            for mangled in MANGLED.values():
                api.say(anna, mangled(LOOSE), where)
            # The bot leaves URLs of other sites.
            for mangled in MANGLED.values():
                api.say(anna, mangled(ELSEWHERE), where)
            await eventually(lambda: len(host.heard) == len(MANGLED))
            await api.until(lambda: len(api.deleted(where)) == len(MANGLED))
        assert host.heard == [mangled(ELSEWHERE).strip() for mangled in MANGLED.values()]
        assert not host.saw("a-loose-code")
        title = "No login of yours waits for this answer" if is_private else "Do not post codes in a group"
        assert {each.partition("\n")[0] for each in scene.texts(where)} == {title}

    asyncio.run(story())


@covers("telegram-people")
def test_names_are_no_messages() -> None:
    named = {"id": 7, "is_bot": False, "first_name": LOOSE, "last_name": "x"}
    group = {"id": -1001, "type": "supergroup", "title": LOOSE}
    message = {
        "message_id": 5,
        "date": 1,
        "chat": group,
        "from": named,
        "text": "hello",
        "author_signature": LOOSE,
    }
    update = Update.de_json({"update_id": 1, "message": {**message, "reply_to_message": message}})
    assert collect_texts(update, "900", "hello").own_texts == ()
    assert parse_other_update(update, "900") is None


@covers("linear", "telegram-agent-blind")
def test_an_update_of_any_size_is_searched_once() -> None:
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
    found = collect_texts(Update.de_json({"update_id": 1, "message": message}), "900")
    assert 0 < sum(map(len, found.own_texts)) <= 500_000


def parameter(address: str, name: str) -> str:
    return address.partition(f"{name}=")[2].partition("&")[0]


def replace_text(message: Message, text: str) -> Message:
    from dataclasses import replace

    return replace(message, text=text)

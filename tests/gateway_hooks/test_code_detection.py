"""Detection of authorization responses in any notation, in linear time. Other sites' URLs do not match."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway_hooks.dialog.code_detection import (
    MAX_SEARCHED_CHARS,
    SEPARATOR,
    collect_redirect_locations,
    contains_redirect,
    login_by_state,
    may_contain_code,
)
from gateway_hooks.dialog.intents import (
    Answer,
    ExposedAnswer,
    UnmatchedAnswer,
    UnrelatedEvent,
    parse_intent,
    without_links,
)
from gateway_hooks.dialog.platform import IncomingEvent, Sender
from gateway_hooks.dialog.servers import StaticServers, redirect_uris
from gateway_hooks.hermes.cached_files import cached_texts_with_codes, delete_cached_file
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS
from hermes_mcp_auth_remote.values import Origin, Secret, Server, ServerOptions
from tests.gateway_hooks.login_factories import ADA, GROUP, make_login, with_device_code
from tests.gateway_hooks.telegram.test_codes_in_updates import MANGLINGS, OTHER_SITE_URL, UNMATCHED_ANSWER_URL
from tests.oauth.builders import STATE, request
from tests.requirements import covers

HOSTED_REDIRECT_URI = "https://agent.example/oauth/callback"
HOSTED_ANSWER_URL = f"{HOSTED_REDIRECT_URI}?code=abc&state=def"


@covers("chat-ours", "paste-mangled")
@pytest.mark.parametrize("mangling", MANGLINGS)
def test_redirect_is_found_in_any_notation(mangling: str) -> None:
    locations = collect_redirect_locations((), [HOSTED_REDIRECT_URI])
    assert contains_redirect(MANGLINGS[mangling](UNMATCHED_ANSWER_URL))
    assert contains_redirect(MANGLINGS[mangling](HOSTED_ANSWER_URL), locations)
    assert not contains_redirect(MANGLINGS[mangling](HOSTED_ANSWER_URL))
    assert not contains_redirect(MANGLINGS[mangling](OTHER_SITE_URL), locations)


@pytest.mark.parametrize(
    "text",
    [
        "http://[::1]:80/cb#code=1&state=2",
        "http://localhost?error=access_denied&state=1",
        "http://app.localhost:3/cb?state=1&code=2",
        "http://127.1/cb?code=1&state=2",
        "https://http://127.0.0.1:1/?state=1&iss=https://as.example&code=1",
        "> http://127.0.0.1:8765/call\n> back?code=1&state=2",
        "HTTP://LOCALHOST:1/CB?CODE=1&STATE=2",
        "http://user@127.0.0.1/cb?code=1&state=2",
        "http://127.0.0.1:1/cb?code=1&#38;state=2",
        "http:/127.0.0.1/cb?code=1&state=2",
        "http://[::ffff:7f00:1]:80/cb?code=1&state=2",
        "http://127.0.0.1/cb?code={1}-2&state=$a.b",
        "http://127.0.0.1/cb?code=$a1&state=:b2",
    ],
)
def test_loopback_redirect_is_found_in_any_notation(text: str) -> None:
    assert contains_redirect(text)
    assert may_contain_code(text)


@covers("chat-ours")
@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/127.0.0.1/cb?code=1&state=2",
        "http://localhost:3000/ and https://site.example/cb?code=1&state=2",
        "http://localhost:3000/,https://site.example/cb?code=1&state=2",
        "http://localhost.evil.example/?code=1&state=2",
        "http://localhost:80@evil.example/?code=1&state=2",
        "http://notlocalhost/?code=1&state=2",
        "http://127.0.0.1/?code=1",
        "http://127.0.0.1/?code_challenge=a&state=b",
        "http://localhost/cb?code=...&state=...",
        "https://as.example/authorize?response_type=code&state=x&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcb",
        f"http://127.0.0.1:1/x{SEPARATOR}?code=1&state=2",
        "def f(code=1, state=2): ...  # http://localhost/",
        'f"http://localhost:8000/callback?code={code}&state={state}"',
        "http://localhost:8000/callback?code={{ code }}&state={{state}}",
        "curl http://localhost:8000/callback?code=$CODE&state=$STATE",
        "curl 'http://localhost:8000/callback?code=${CODE}&state=${STATE}'",
        "http://localhost:8000/callback?code=%s&state=%s",
        "http://localhost:8000/callback?code=[code]&state=[state]",
        "http://localhost:8000/callback?code=:code&state=:state",
        "http://localhost:8000/callback?error=${error}&state=$state",
    ],
)
def test_text_without_answer_is_unrelated(text: str) -> None:
    assert not contains_redirect(text)
    for is_private in (True, False):
        event = IncomingEvent(Sender("ada"), text=text, quoted_text=text, extra_texts=(text,))
        assert (
            parse_intent(event, ADA, [with_device_code(make_login())], is_private=is_private)
            == UnrelatedEvent()
        )


@covers("chat-ours")
@pytest.mark.parametrize("value", ["{code}", "${CODE}", "$CODE", "%s", "[code]", ":code"])
def test_redirect_template_is_unrelated_while_login_waits(value: str) -> None:
    text = f"url = 'http://localhost:8000/callback?code={value}&state={value}'"
    event = IncomingEvent(Sender("ada"), text=text, extra_texts=(text,))
    assert parse_intent(event, ADA, [make_login()], is_private=True) == UnrelatedEvent()
    assert parse_intent(event, GROUP, [make_login()], is_private=False) == UnrelatedEvent()


@covers("chat-ours")
@pytest.mark.parametrize("start", [0, 8, 30])
def test_quote_of_login_link_is_unrelated(start: int) -> None:
    quote = f"Open this: {make_login().authorization_url[start:]}\nor ask again"
    assert STATE in quote
    assert without_links(quote, [make_login()]) == "Open this: \nor ask again"
    event = IncomingEvent(Sender("ada"), text="what is that?", quoted_text=quote)
    assert parse_intent(event, ADA, [make_login()], is_private=True) == UnrelatedEvent()
    # A state in another URL is not a part of the link.
    assert without_links(f"http://x/?code=1&state={STATE}", [make_login()]).endswith(STATE)


@covers("chat-ours", "chat-exposed")
@pytest.mark.parametrize(
    "text", [STATE, f"state: {STATE}", "\u200b".join(STATE), f"{STATE[:9]}\n{STATE[9:]}"]
)
def test_state_of_waiting_login_is_an_answer(text: str) -> None:
    event = IncomingEvent(Sender("ada"), text="look", extra_texts=(text,))
    assert parse_intent(event, ADA, [make_login()], is_private=True) == Answer(make_login())
    assert parse_intent(event, GROUP, [make_login()], is_private=False) == ExposedAnswer(make_login())
    other_origin = Origin("parlour", chat_id="elsewhere", user_id="eve", bot_id="900")
    assert parse_intent(event, other_origin, [make_login()], is_private=True) == UnmatchedAnswer()
    # The record of a login that is over has no state.
    finished_login = make_login(status="done", request=replace(request(), state=Secret("")))
    assert parse_intent(event, ADA, [finished_login], is_private=True) == UnrelatedEvent()


@covers("chat-ours")
def test_redirect_uri_of_waiting_login_needs_no_state() -> None:
    authorization_request = replace(request(), redirect_uri=HOSTED_REDIRECT_URI)
    event = IncomingEvent(Sender("eve"), text="look", extra_texts=(f"{HOSTED_REDIRECT_URI}?code=abc",))
    eve_origin = Origin("parlour", chat_id="private-eve", user_id="eve", bot_id="900")
    assert (
        parse_intent(event, eve_origin, [make_login(request=authorization_request)], is_private=True)
        == UnmatchedAnswer()
    )
    assert (
        parse_intent(
            event, eve_origin, [make_login(request=authorization_request, status="expired")], is_private=True
        )
        == UnrelatedEvent()
    )
    event_with_state = replace(event, extra_texts=(HOSTED_ANSWER_URL,))
    assert (
        parse_intent(
            event_with_state,
            eve_origin,
            [make_login(request=authorization_request, status="expired")],
            is_private=True,
        )
        == UnmatchedAnswer()
    )
    assert parse_intent(event_with_state, eve_origin, [], is_private=True) == UnrelatedEvent()
    assert (
        parse_intent(event_with_state, eve_origin, [], is_private=True, configured_uris=[HOSTED_REDIRECT_URI])
        == UnmatchedAnswer()
    )


def test_reply_to_login_link_is_unrelated() -> None:
    authorization_request = replace(
        request(), url=f"https://as.example/authorize?state={STATE}&code_challenge=x"
    )
    event = IncomingEvent(
        Sender("ada"),
        text="what is that?",
        quoted_text=f"Open {authorization_request.url} please",
        quoted_message_id="3",
    )
    assert (
        parse_intent(event, ADA, [make_login(request=authorization_request)], is_private=True)
        == UnrelatedEvent()
    )


def test_redirect_uris_skip_invalid_entries() -> None:
    class PartlyInvalidServers(StaticServers):
        def find(self, name: str) -> Server:
            if name == "broken":
                raise ConfigError("No.", "Fix it.")
            return super().find(name)

    entries = [
        Server("broken", "https://a.example"),
        Server("plain", "https://b.example"),
        Server("hosted", "https://c.example", ServerOptions(redirect_uri=HOSTED_REDIRECT_URI)),
    ]
    assert redirect_uris(PartlyInvalidServers(entries)) == (HOSTED_REDIRECT_URI,)


@covers("linear")
@pytest.mark.parametrize(
    "unit",
    [
        "127.0.0.1/?",
        "?code=a&state=b",
        "https://x?code=a&state=b ",
        "%253f",
        "&#38;",
        "\u200b",
        "[0:",
        "\n> ",
    ],
)
def test_detection_takes_linear_time(unit: str) -> None:
    def measure_seconds(size: int) -> float:
        text = unit * (size // len(unit))
        started_at = time.process_time()
        contains_redirect(text, collect_redirect_locations([make_login()]))
        may_contain_code(text)
        return time.process_time() - started_at

    measure_seconds(10_000)
    # If the work were quadratic, four times the length would take sixteen times as long.
    assert measure_seconds(400_000) < 10 * max(measure_seconds(100_000), 0.01)


@covers("linear")
def test_login_by_state_finds_one_of_thousand_logins_in_long_text() -> None:
    logins = [
        make_login(
            login_id=f"login-{n}",
            request=replace(request(), state=Secret(f"the-state-of-login-number-{n:04}-x")),
        )
        for n in range(1000)
    ]
    text = "nothing to see " * 30_000 + "the-state-of-login-number-0999-x"
    login = login_by_state(text, logins)
    assert login is not None
    assert login.id == "login-999"


@covers("hermes-kept-out")
def test_only_regular_files_are_read_and_only_cached_files_deleted(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.txt").write_text(UNMATCHED_ANSWER_URL)
    (tmp_path / "b.txt").write_bytes(UNMATCHED_ANSWER_URL.encode("utf-16"))
    (tmp_path / "c.png").write_text(UNMATCHED_ANSWER_URL)
    (tmp_path / "d.txt").write_text("good morning")
    names = ["a.txt", "b.txt", "c.png", "d.txt", "pipe", "gone.txt"]
    event = SimpleNamespace(
        media_urls=[*(str(tmp_path / name) for name in names), "https://cdn.example/a.txt", None],
        media_types=["text/plain", "", "image/png", "text/plain"],
    )
    assert {path.name: text for path, text in cached_texts_with_codes(event).items()} == {
        "a.txt": UNMATCHED_ANSWER_URL,
        "b.txt": UNMATCHED_ANSWER_URL,
    }
    # If Hermes is not installed, it has no cache folder, so the file does not count as cached.
    assert not delete_cached_file(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").exists()


@covers("hermes-kept-out", "linear")
def test_files_of_a_message_share_one_search_limit(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.log").write_text("code " * (MAX_SEARCHED_CHARS // 5))
    (tmp_path / "5.txt").write_text(UNMATCHED_ANSWER_URL)
    event = SimpleNamespace(media_urls=[str(path) for path in sorted(tmp_path.iterdir())])
    texts = list(cached_texts_with_codes(event).values())
    assert sum(map(len, texts)) <= MAX_SEARCHED_CHARS + 5 * MAX_PASTE_CHARS
    # A file that contains only an address is read completely, even after large files.
    assert texts[-1] == UNMATCHED_ANSWER_URL

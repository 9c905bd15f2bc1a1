"""An administrator connects a server by its address that the operator has not configured."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import Capabilities, IncomingEvent, Sender
from gateway_hooks.dialog.policy import AllowList, Policy
from gateway_hooks.dialog.rendering import Renderer
from gateway_hooks.dialog.servers import Servers, StaticServers
from gateway_hooks.runtime.admission import Admission
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.runtime.user_servers import UserServers
from hermes_mcp_auth_remote.config import read_configuration
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.http.addresses import Address
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.login import PromptReason
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.dependencies import ExchangeRunner
from hermes_mcp_auth_remote.service.server_lookup import find_server_at
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.record_files import PeopleFile
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.fake_platform import (
    ChatBot,
    ChatUser,
    FakePlatform,
    plain_text,
    without_secrets,
)
from tests.gateway_hooks.login_factories import make_login, with_device_code
from tests.gateway_hooks.public_demo import LOGIN_ORIGIN, MCP_ORIGIN, PublicDemo
from tests.gateway_hooks.test_prompt_cards import MAX_LINES, count_phone_lines
from tests.oauth.builders import NOW
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.test_server_lookup import store_login
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow

T = TypeVar("T")

NAME = "mcp.example.com"
KEY = CredentialKey(NAME, "parlour:ada")
OWN_TOKENS = AllowList(users={"ada", "bob"}, owners="per_user")

StartUrlBot = Callable[..., ChatBot]


@pytest.fixture
def public(demo: Demo) -> PublicDemo:
    return PublicDemo(demo)


@pytest.fixture
def start(tmp_path: Path, clock: ManualClock, runner: asyncio.Runner, public: PublicDemo) -> StartUrlBot:
    """Return a function that starts a bot whose network leads to the demo at public addresses."""

    def start_bot(
        policy: Policy = OWN_TOKENS,
        servers: Servers | None = None,
        run: ExchangeRunner | None = None,
        platform: FakePlatform | None = None,
    ) -> ChatBot:
        service = AuthService(tmp_path, clock=clock, run_exchange=run or public.run_exchange)
        return ChatBot(runner, service, servers or StaticServers([]), clock, policy=policy, platform=platform)

    return start_bot


def connect(user: ChatUser, bot: ChatBot, public: PublicDemo, url: str = "") -> None:
    """Connect the server at an address."""
    user.send_text(f"/connect {url or public.mcp_url}")
    login = bot.login
    user.paste(public.to_public(approve(public.to_local(login.authorization_url))))


@covers("chat-url")
def test_an_administrator_connects_a_server_by_its_address(start: StartUrlBot, public: PublicDemo) -> None:
    bot = start()
    ada = bot.user("ada")
    ada.send_text(f"/connect {public.mcp_url}")
    card = ada.last_card
    assert card.title == f"Connect {NAME}"
    assert card.intro == "You asked for it. No operator set it up."
    screens = [without_secrets(ada.visible_text(), bot.login)]
    (server_row,) = [row for row in card.rows if row.label == "Server"]
    assert server_row.value == public.mcp_url
    # Another process completes the login: it knows the server from the record only.
    bot = start(platform=bot.platform)
    ada = bot.user("ada")
    ada.paste(public.to_public(approve(public.to_local(bot.login.authorization_url))))
    assert ada.visible_titles() == [f"{NAME}: connected"]
    assert bot.service.blocking.keys() == [KEY]
    ada.send_text("/connections")
    screens.append(ada.visible_text())
    compare_transcript("chat_address", "\n\n--------\n\n".join(screens))
    assert [row.label for row in ada.last_card.rows] == [NAME]
    assert ada.last_card.rows[0].value.startswith("connected as ada@example.com")
    # The entry, also as a restarted bot knows it, may be reached at public addresses only.
    bot = start(platform=bot.platform)
    ada = bot.user("ada")
    session = bot.dispatcher.session(NAME, "ada")
    assert bot.run(session.header()).startswith("Bearer ")
    assert session.server.is_public_only
    assert all(server.is_public_only for server in public.servers)
    ada.press(f"Disconnect {NAME}")
    ada.press("Yes, disconnect")
    assert ada.last_card.title == f"{NAME}: disconnected"
    assert ada.last_card.buttons == ()
    assert bot.service.blocking.keys() == []
    with pytest.raises(ServerNotFound):
        bot.dispatcher.session(NAME, "ada")
    ada.send_text("/connections")
    assert ada.last_card.rows == ()


@covers("chat-url", "card-reason")
@pytest.mark.parametrize("reason", get_args(PromptReason))
@pytest.mark.parametrize("capabilities", [Capabilities(), Capabilities(has_forms=True, can_delete=False)])
def test_the_card_of_an_unconfigured_server_fits_on_a_phone(
    capabilities: Capabilities, reason: PromptReason
) -> None:
    login = make_login(
        key=CredentialKey("mcp.linear.app"),
        server_url="https://mcp.linear.app/mcp",
        request=replace(make_login().request, scope=frozenset({"mcp:tools", "offline_access"})),
        is_public_only=True,
    )
    for shown in (login, with_device_code(login)):
        card = Renderer(capabilities).prompt_card(shown, NOW, reason=reason)
        text = plain_text(card, with_link=False)
        assert count_phone_lines(text) <= MAX_LINES, text
        assert card.title == "Connect mcp.linear.app"
        assert card.intro.endswith("No operator set it up.")


@covers("chat-url")
def test_the_session_is_refreshed_at_public_addresses_only(
    start: StartUrlBot, public: PublicDemo, clock: ManualClock, demo: Demo
) -> None:
    bot = start()
    connect(bot.user("ada"), bot, public)
    public.servers.clear()
    clock.now += 7200
    bot = start(platform=bot.platform)
    assert bot.run(bot.dispatcher.session(NAME, "ada").header()).startswith("Bearer ")
    assert [server.is_public_only for server in public.servers] == [True]
    assert demo.authorization_server.count_requests("refresh") == 1


class OwnPolicy:
    """A policy of an application, which knows nothing of addresses."""

    def may_talk(self, sender: Sender) -> bool:
        return bool(sender.user_id)

    may_change = may_talk

    def owner(self, platform: str, user_id: str) -> str:
        return f"{platform}:{user_id}"

    def reminder_recipients(self) -> tuple[str, ...]:
        return ()


@covers("chat-url")
@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (OWN_TOKENS, ""),
        (AllowList(users={"ada"}, admins={"ada"}, owners="per_user"), ""),
        (AllowList(users={"ada"}, connect_urls=True), ""),
        (AllowList(users={"ada"}, owners="per_user", connect_urls=False), ENGLISH.addresses_off),
        (AllowList(users={"ada"}), ENGLISH.addresses_off),
        (OwnPolicy(), ENGLISH.addresses_off),
        (AllowList(users={"ada"}, admins={"bob"}, owners="per_user"), ENGLISH.addresses_for_admins),
        (AllowList(roles={"staff"}, owners="per_user"), ENGLISH.addresses_for_admins),
        (AllowList(users={"ada"}, admins={"bob"}, connect_urls=True), ENGLISH.admins_only),
    ],
)
def test_who_may_connect_an_address(
    start: StartUrlBot, public: PublicDemo, policy: Policy, sentence: str
) -> None:
    bot = start(policy)
    bot.platform.senders["ada"] = Sender("ada", frozenset({"staff"}))
    ada = bot.user("ada")
    ada.send_text(f"/connect {public.mcp_url}")
    if not sentence:
        assert ada.last_card.title == f"Connect {NAME}"
        return
    assert ada.last_card.paragraphs == (sentence,)
    assert bot.waiting_logins() == []
    assert public.servers == []
    assert "mcp.example.com" not in str(ada.last_card)


@covers("chat-url", "admission")
def test_the_operator_reads_which_setting_allows_addresses(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path, clock: ManualClock
) -> None:
    admission = Admission(AllowList(users={"ada"}), "parlour", PeopleFile(tmp_path), clock)
    bot = start(admission)
    bot.user("ada").send_text(f"/connect {public.mcp_url}")
    assert bot.user("ada").last_card.paragraphs == (ENGLISH.addresses_off, ENGLISH.addresses_off_advice)


@covers("chat-url", "admission")
def test_an_admitted_user_is_no_administrator(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path, clock: ManualClock
) -> None:
    admission = Admission(AllowList(users={"ada"}, owners="per_user"), "parlour", PeopleFile(tmp_path), clock)
    bot = start(admission)
    code = admission.request_code("bob")
    assert admission.approve(code, "ada") == "bob"
    for user, title in (("ada", f"Connect {NAME}"), ("bob", ENGLISH.address_refused_title)):
        bot.user(user).send_text(f"/connect {public.mcp_url}")
        assert bot.user(user).last_card.title == title
    assert bot.user("bob").last_card.paragraphs == (ENGLISH.addresses_for_admins,)


def write_config(home: Path, *lines: str) -> ConfigServers:
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text("\n".join(("mcp_servers:", *lines)), "utf-8")
    return ConfigServers(home, {})


@covers("chat-url")
@pytest.mark.parametrize("policy", [AllowList(users={"ada"}), OWN_TOKENS])
def test_a_configured_address_means_its_entry(
    start: StartUrlBot, public: PublicDemo, demo: Demo, tmp_path: Path, policy: Policy
) -> None:
    # The operator may configure what a chat user may not name: a server on this machine.
    servers = write_config(
        tmp_path,
        f"  public: {{url: '{public.mcp_url}?key=of-the-operator', auth: oauth}}",
        f"  local: {{url: '{demo.ping_url}', auth: oauth}}",
    )
    for address, name, run in (
        (f"{public.mcp_url}?key=of-the-operator", "public", public.run_exchange),
        (demo.ping_url, "local", run_exchange),
        (f"  {demo.ping_url.replace('http:', 'HTTP:')}  ", "local", run_exchange),
    ):
        bot = start(policy, servers, run)
        ada = bot.user("ada")
        ada.send_text(f"/connect {address}")
        assert ada.last_card.title == f"Connect {name}"
        assert bot.login.key.server_name == name
        assert bot.login.is_public_only is False
        ada.press("Cancel")


@covers("chat-url")
def test_an_address_of_two_entries_asks_for_a_name(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path
) -> None:
    entries = (f"  {name}: {{url: '{public.mcp_url}', auth: oauth}}" for name in ("work", "home"))
    bot = start(OWN_TOKENS, write_config(tmp_path, *entries))
    bot.user("ada").send_text(f"/connect {public.mcp_url}")
    assert "Use one of their names: work, home." in str(bot.user("ada").last_card)
    assert bot.waiting_logins() == []


@covers("chat-url", "one-identity")
@pytest.mark.parametrize("owner", [None, "parlour:ada"])
@pytest.mark.parametrize(
    ("entry_names", "login_names", "name"),
    [
        (("notes",), (), "notes"),
        ((), ("work",), "work"),
        (("notes",), ("work",), "work"),
        (("notes", "home"), ("work",), "work"),
        (("notes",), ("notes",), "notes"),
        (("notes",), ("notes", "work"), "ambiguous"),
        (("notes",), ("work", "home"), "ambiguous"),
        ((), ("work", "home"), "ambiguous"),
        ((), (), "none"),
    ],
)
def test_an_address_means_the_same_server_in_a_chat_and_in_a_command(
    tmp_path: Path, owner: Owner, entry_names: tuple[str, ...], login_names: tuple[str, ...], name: str
) -> None:
    url, service = "https://mcp.example.com/mcp", AuthService(tmp_path)
    servers = write_config(tmp_path, *(f"  {it}: {{url: '{url}', auth: oauth}}" for it in entry_names))
    for login_name in login_names:
        store_login(tmp_path, login_name, url, owner)
    user_servers = UserServers(servers, service, owner, includes_stored=True)
    store, configuration = FileStore(tmp_path), read_configuration(tmp_path, {})

    def find(find_at: Callable[[str], Server | None]) -> str:
        try:
            server = find_at(f"{url}#part")
        except ConfigError:
            return "ambiguous"
        return "none" if server is None else server.name

    assert find(user_servers.find_at) == name
    assert find(lambda address: find_server_at(address, owner, configuration, store)) == name


@covers("chat-url", "one-identity")
def test_users_of_their_own_tokens_get_the_entry_although_the_operator_has_a_login_by_address(
    tmp_path: Path,
) -> None:
    url, owner, service = "https://mcp.example.com/mcp", "parlour:ada", AuthService(tmp_path)
    servers = write_config(tmp_path, f"  notes: {{url: '{url}', auth: oauth}}")
    store_login(tmp_path, "work", url)
    store, configuration = FileStore(tmp_path), read_configuration(tmp_path, {})
    for _ in range(2):
        in_chat = UserServers(servers, service, owner, includes_stored=True).find_at(url)
        in_command = find_server_at(url, owner, configuration, store)
        assert in_chat is not None
        assert in_command is not None
        assert (in_chat.name, in_command.name) == ("notes", "notes")
        # The same after the login.
        store_login(tmp_path, "notes", url, owner)


@covers("chat-url", "one-identity")
def test_without_connect_urls_an_address_means_the_entry_that_the_bot_offers(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path
) -> None:
    servers = write_config(tmp_path, f"  notes: {{url: '{public.mcp_url}', auth: oauth}}")
    store_login(tmp_path, "work", public.mcp_url)
    store, configuration = FileStore(tmp_path), read_configuration(tmp_path, {})
    work_credentials = store.read(CredentialKey("work")).credentials
    in_command = find_server_at(public.mcp_url, None, configuration, store)
    assert in_command is not None
    assert in_command.name == "work"
    bot = start(AllowList(users={"ada"}), servers)
    ada = bot.user("ada")
    # The bot offers only the entry, so a login of `work` would change nothing that its users see.
    ada.send_text("/connections")
    assert [(row.label, row.value) for row in ada.last_card.rows] == [("notes", "not connected")]
    ada.send_text(f"/connect {public.mcp_url}")
    assert ada.last_card.title == "Connect notes"
    ada.paste(public.to_public(approve(public.to_local(bot.login.authorization_url))))
    assert bot.run(bot.dispatcher.session("notes", "ada").header()).startswith("Bearer ")
    assert store.read(CredentialKey("work")).credentials == work_credentials


@covers("chat-url")
def test_two_administrators_of_shared_tokens_get_entries_of_their_own(
    start: StartUrlBot, public: PublicDemo
) -> None:
    bot = start(AllowList(users={"ada", "bob"}, connect_urls=True))
    bot.user("ada").send_text(f"/connect {public.mcp_url}")
    bot.user("bob").send_text(f"/connect {public.mcp_url}?tenant=2")
    names = {login.origin.user_id: login.key.server_name for login in bot.waiting_logins()}
    assert names["ada"] == NAME
    assert names["bob"].startswith(f"{NAME}-")


@covers("chat-url")
@pytest.mark.parametrize("is_nested", [True, False], ids=["one inside the other", "both together"])
def test_two_administrators_who_connect_one_host_at_the_same_time_share_no_name(
    start: StartUrlBot, public: PublicDemo, *, is_nested: bool
) -> None:
    # Both users' names are chosen before the login of either is stored.
    barrier, waiting_users = asyncio.Barrier(2), ["ada"] if is_nested else ["ada", "bob"]

    bots: list[ChatBot] = []

    async def connect_address(user_id: str) -> None:
        event = IncomingEvent(Sender(user_id), command="connect", text=f"{public.mcp_url}?user={user_id}")
        assert await bots[0].dispatcher.handle(event, bots[0].user(user_id).chat)

    async def run_late(exchange: Exchange[T], server: Server) -> T:
        if waiting_users:
            waiting_users.pop()
            await (connect_address("bob") if is_nested else barrier.wait())
        return await public.run_exchange(exchange, server)

    bot = start(AllowList(users={"ada", "bob"}, connect_urls=True), run=run_late)
    bots.append(bot)

    async def connect_both() -> None:
        await asyncio.gather(
            *(connect_address(user_id) for user_id in ("ada", "bob")[: 1 if is_nested else 2])
        )

    bot.run(connect_both())
    urls_by_name = {login.key.server_name: login.server_url for login in bot.waiting_logins()}
    assert sorted(urls_by_name.values()) == [f"{public.mcp_url}?user={user_id}" for user_id in ("ada", "bob")]
    assert all(name.startswith(NAME) for name in urls_by_name)


@covers("chat-url")
def test_users_of_two_platforms_who_connect_one_host_share_no_name(
    start: StartUrlBot, public: PublicDemo
) -> None:
    other_platform = FakePlatform()
    other_platform.name = "lounge"
    policy = AllowList(users={"ada", "bob"}, connect_urls=True)
    start(policy).user("ada").send_text(f"/connect {public.mcp_url}")
    bot = start(policy, platform=other_platform)
    bot.user("bob").send_text(f"/connect {public.mcp_url}?tenant=2")
    assert len({login.key.server_name for login in bot.waiting_logins()}) == 2


@covers("chat-url")
@pytest.mark.parametrize("entry", ["auth: oauth, enabled: false", "headers: {x-key: secret}"])
def test_an_entry_that_chats_do_not_offer_cannot_be_connected_by_its_address(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path, entry: str
) -> None:
    bot = start(OWN_TOKENS, write_config(tmp_path, f"  closed: {{url: '{public.mcp_url}', {entry}}}"))
    ada = bot.user("ada")
    ada.send_text(f"/connect {public.mcp_url}")
    assert "belongs to closed in config.yaml" in str(ada.last_card)
    assert public.servers == []
    assert bot.waiting_logins() == []


@covers("chat-url")
def test_a_stored_address_means_its_entry(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path, clock: ManualClock
) -> None:
    terminal = AuthService(tmp_path, clock=clock, run_exchange=public.run_exchange)
    bot = start()
    ada = bot.user("ada")

    async def log_in_at_terminal() -> None:
        login = await terminal.start_login(
            Server("my-notes", public.mcp_url), ada.chat.origin, owner="parlour:ada"
        )
        answer = await asyncio.to_thread(approve, public.to_local(login.authorization_url))
        await terminal.complete_login(login.id, public.to_public(answer), ada.chat.origin)

    bot.run(log_in_at_terminal())
    ada.send_text(f"/connect {public.mcp_url}")
    assert ada.last_card.title == "Connect my-notes"
    assert bot.login.is_public_only
    assert bot.service.blocking.keys() == [CredentialKey("my-notes", "parlour:ada")]
    # Another user's tokens are of no concern to this one.
    bot.user("bob").send_text(f"/connect {public.mcp_url}")
    assert bot.user("bob").last_card.title == f"Connect {NAME}"


@covers("chat-url")
@pytest.mark.parametrize(
    "configured", ["mcp.example.com", "mcp_example_com"], ids=["same name", "same token file"]
)
def test_an_entry_never_takes_the_name_or_the_files_of_another(
    start: StartUrlBot, public: PublicDemo, demo: Demo, tmp_path: Path, configured: str
) -> None:
    servers = write_config(tmp_path, f"  {configured}: {{url: '{demo.mcp_url}', auth: oauth}}")
    bot = start(OWN_TOKENS, servers)
    ada = bot.user("ada")
    ada.send_text(f"/connect {public.mcp_url}")
    first_name = bot.login.key.server_name
    assert first_name.startswith(f"{NAME}-")
    ada.send_text(f"/connect {public.mcp_url}?tenant=2")
    names = {login.key.server_name for login in bot.waiting_logins()}
    assert len(names) == 2
    assert configured not in names
    # The same address again means the same entry, while its login waits.
    ada.send_text(f"/connect {public.mcp_url}")
    assert {login.key.server_name for login in bot.waiting_logins()} == names


REFUSED_BEFORE_A_REQUEST = (
    "http://mcp.example.com/mcp",
    "http://127.0.0.1:8080/mcp",
    "https://127.0.0.1/mcp",
    "https://localhost/mcp",
    "https://localhost./mcp",
    "https://mcp.localhost/mcp",
    "https://[::1]/mcp",
    "https://[::ffff:127.0.0.1]/mcp",
    "https://[::ffff:10.0.0.1]/mcp",
    "https://[64:ff9b::a9fe:a9fe]/mcp",
    "https://[2002:a9fe:a9fe::]/mcp",
    "https://169.254.169.254/latest/meta-data",
    "https://[fd00:ec2::254]/",
    "https://100.100.100.200/",
    "https://10.0.0.8/mcp",
    "https://192.168.1.1/mcp",
    "https://0.0.0.0/mcp",
    "https://2130706433/mcp",
    "https://0x7f.1/mcp",
    "https://127.1/mcp",
    "https://①②⑦.0.0.1/mcp",
    "https://user:hunter2-password@mcp.example.com/mcp",
    "https://mcp.example.com@169.254.169.254/mcp",
    "https://mcp.example.com\\@evil.example/mcp",
    "file:///etc/passwd",
    "javascript://mcp.example.com/%0aalert(1)",
    "ftp://mcp.example.com/mcp",
    "https:///mcp",
    "https://",
    f"https://{'a' * 64}.example/mcp",
    f"https://mcp.example.com/{'a' * 9000}",
    "https://mcp.example.com/a b",
    "https://mcp.example.com:99999/mcp",
)


@covers("chat-url", "chat-not-echoed")
@pytest.mark.parametrize("address", REFUSED_BEFORE_A_REQUEST)
def test_an_internal_or_malformed_address_is_refused_before_a_request(
    start: StartUrlBot, public: PublicDemo, address: str
) -> None:
    bot = start()
    ada = bot.user("ada")
    ada.send_text(f"/connect {address}")
    assert ada.last_card.title == ENGLISH.address_refused_title
    assert public.servers == []
    assert bot.waiting_logins() == []
    for part in ("hunter2", "169.254", "meta-data", "passwd", "alert"):
        assert part not in str(ada.last_card)
    assert "hunter2" not in ada.visible_text()


@covers("chat-url")
@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["10.1.2.3"],
        ["1.1.1.1", "10.1.2.3"],
        ["fd00::1"],
        ["::1"],
        ["198.18.0.7"],
        ["0.0.0.0"],
    ],
)
def test_a_name_with_an_internal_address_is_refused(start: StartUrlBot, answers: list[str]) -> None:
    lookups: list[str] = []

    async def resolve(host: str, port: int) -> list[Address]:
        del port
        lookups.append(host)
        return [ipaddress.ip_address(answer) for answer in answers]

    bot = start(run=partial(run_exchange, environ={}, resolve=resolve))
    ada = bot.user("ada")
    ada.send_text("/connect https://rebind.example.com/mcp")
    assert ada.last_card.title == "rebind.example.com: not connected"
    text = str(ada.last_card)
    assert (
        "has an internal address" in text or "The addresses of rebind.example.com cannot be checked" in text
    )
    assert ada.last_card.buttons == ()
    assert bot.waiting_logins() == []
    assert set(lookups) == {"rebind.example.com"}


@covers("chat-url")
def test_failed_addresses_count_towards_the_limit_of_starts(start: StartUrlBot) -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        del host, port
        return [ipaddress.ip_address("10.0.0.1")]

    bot = start(run=partial(run_exchange, environ={}, resolve=resolve))
    ada = bot.user("ada")
    for number in range(11):
        ada.send_text(f"/connect https://host-{number}.example.com/mcp")
    assert ada.last_card.title == ENGLISH.too_often_title


@covers("chat-url", "chat-not-echoed")
def test_a_key_in_the_address_is_shown_nowhere_and_the_message_is_deleted(
    start: StartUrlBot, public: PublicDemo, caplog: pytest.LogCaptureFixture
) -> None:
    bot = start()
    ada = bot.user("ada")
    connect(ada, bot, public, f"{public.mcp_url}?key=an-api-key-0123456789")
    ada.send_text("/connections")
    bot_texts = "\n".join(str(message) for message in ada.room.messages.values())
    assert "an-api-key" not in bot_texts
    assert "an-api-key" not in caplog.text
    assert [message.text for message in ada.room.deleted if "an-api-key" in message.text] == [
        f"/connect {public.mcp_url}?key=an-api-key-0123456789"
    ]
    (key,) = bot.service.blocking.keys()
    assert key == KEY
    assert bot.service.blocking.read_credentials(Server(NAME, ""), KEY.owner).binding is not None


@covers("chat-url", "chat-not-echoed", "scheme-missing")
@pytest.mark.parametrize("address", ["mcp.example.com/mcp?key=an-api-key-0123456789", "mcp.example.com"])
def test_an_address_without_https_gets_a_sentence(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path, address: str
) -> None:
    bot = start(servers=write_config(tmp_path, "  notes: {url: 'https://a.example', auth: oauth}"))
    ada = bot.user("ada")
    ada.send_text(f"/connect {address}")
    assert ada.last_card.title == "There is no such server"
    [paragraph] = ada.last_card.paragraphs
    assert paragraph == "An address begins with https://. Send /connect with the whole address."
    assert "an-api-key" not in ada.visible_text()
    assert ("key=" in address) == bool(ada.room.deleted)
    assert public.servers == []


@covers("chat-url")
def test_a_message_with_a_key_that_cannot_be_deleted_is_left_to_the_user(
    start: StartUrlBot, public: PublicDemo
) -> None:
    bot = start()
    ada = bot.user("ada")
    ada.room.cannot_delete = True
    ada.send_text(f"/connect {public.mcp_url}?key=an-api-key-0123456789")
    assert ENGLISH.delete_failed in ada.visible_text()
    assert ada.last_card.title == f"Connect {NAME}"


@covers("chat-url", "chat-private")
def test_in_a_group_nothing_about_the_address_is_said(start: StartUrlBot, public: PublicDemo) -> None:
    bot = start()
    in_group = bot.user("ada", group="kitchen")
    in_group.send_text(f"/connect {public.mcp_url}?key=an-api-key-0123456789")
    assert [card.title for card in in_group.room.cards()] == [ENGLISH.wrote_privately]
    assert [message.text for message in in_group.room.deleted if "an-api-key" in message.text]
    assert bot.user("ada").last_card.title == f"Connect {NAME}"


@covers("chat-url")
def test_a_host_that_is_not_ascii_is_shown_as_the_browser_shows_it(
    start: StartUrlBot, public: PublicDemo
) -> None:
    bot = start(run=partial(run_exchange, environ={}, resolve=resolve_to_nothing))
    ada = bot.user("ada")
    ada.send_text("/connect https://mсp.example.com/mcp")
    assert ada.last_card.title == "xn--mp-omc.example.com: not connected"


async def resolve_to_nothing(host: str, port: int) -> list[Address]:
    raise OSError(host, port)


@covers("chat-url")
def test_a_long_host_keeps_its_end(start: StartUrlBot) -> None:
    bot = start(run=partial(run_exchange, environ={}, resolve=resolve_to_nothing))
    ada = bot.user("ada")
    ada.send_text(f"/connect https://mcp.linear.app.{'a' * 60}.{'b' * 60}.evil.example/mcp")
    assert "evil.example-" in ada.last_card.title
    assert "linear" not in ada.last_card.title
    assert "…" not in ada.last_card.title


@covers("chat-url")
@pytest.mark.parametrize("end", ["Cancel", "expiry"])
def test_a_login_that_ended_can_be_tried_again(
    start: StartUrlBot, public: PublicDemo, clock: ManualClock, end: str
) -> None:
    bot = start()
    ada = bot.user("ada")
    ada.send_text(f"/connect {public.mcp_url}")
    if end == "Cancel":
        ada.press("Cancel")
    else:
        clock.now += 601
        bot.settle()
    assert ada.last_card.title == f"{NAME}: not connected"
    ada.press("Try again")
    assert ada.last_card.title == f"Connect {NAME}"
    assert bot.login.is_public_only


@covers("chat-url")
def test_the_owner_is_reminded_and_logs_in_again(
    start: StartUrlBot, public: PublicDemo, clock: ManualClock, demo: Demo
) -> None:
    bot = start()
    ada = bot.user("ada")
    connect(ada, bot, public)
    demo.authorization_server.ledger.revoke_everything()
    clock.now += 7200
    with pytest.raises(McpAuthError):
        bot.run(bot.dispatcher.session(NAME, "ada").header())
    bot = start(platform=bot.platform)
    ada = bot.user("ada")
    bot.run(bot.dispatcher.reminders.check_sessions())
    assert ada.last_card.title == f"{NAME}: a login is needed"
    ada.press("Log in again")
    assert ada.last_card.title == f"Connect {NAME}"
    assert bot.login.is_public_only
    assert bot.login.key == KEY


@covers("chat-url")
def test_a_permission_that_was_withdrawn_ends_logins_and_reminders(
    start: StartUrlBot, public: PublicDemo, clock: ManualClock, demo: Demo
) -> None:
    bot = start()
    ada = bot.user("ada")
    connect(ada, bot, public)
    ada.send_text(f"/connect {public.mcp_url}")
    answer = public.to_public(approve(public.to_local(bot.login.authorization_url)))
    bot = start(replace_connect_urls(OWN_TOKENS), platform=bot.platform)
    ada = bot.user("ada")
    ada.paste(answer)
    assert bot.waiting_logins() == []
    assert ENGLISH.admins_only in ada.visible_text()
    demo.authorization_server.ledger.revoke_everything()
    clock.now += 7200
    sent_count = len(ada.room.cards())
    bot.run(bot.dispatcher.reminders.check_sessions())
    assert len(ada.room.cards()) == sent_count
    # The connection can still be seen and ended.
    ada.send_text("/connections")
    ada.press(f"Disconnect {NAME}")
    ada.press("Yes, disconnect")
    assert bot.service.blocking.keys() == []


def replace_connect_urls(policy: AllowList) -> AllowList:
    return AllowList(policy.users, owners=policy.owners, connect_urls=False)


@covers("chat-url", "chat-owners")
def test_another_user_does_not_see_the_entry(start: StartUrlBot, public: PublicDemo) -> None:
    bot = start()
    connect(bot.user("ada"), bot, public)
    bob = bot.user("bob")
    bob.send_text("/connections")
    assert bob.last_card.rows == ()
    bob.send_text(f"/disconnect {NAME}")
    assert bot.service.blocking.keys() == [KEY]
    with pytest.raises(ServerNotFound):
        bot.dispatcher.session(NAME, "bob")
    assert bot.dispatcher.server_names("bob") == []
    assert bot.dispatcher.server_names("ada") == [NAME]


@covers("chat-url")
def test_an_entry_that_left_config_yaml_does_not_return_as_an_entry_of_the_chat(
    start: StartUrlBot, public: PublicDemo, tmp_path: Path
) -> None:
    bot = start(OWN_TOKENS, write_config(tmp_path, f"  notes: {{url: '{public.mcp_url}', auth: oauth}}"))
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    ada.paste(public.to_public(approve(public.to_local(bot.login.authorization_url))))
    write_config(tmp_path, "  {}")
    assert bot.dispatcher.server_names("ada") == []
    with pytest.raises(ServerNotFound):
        bot.dispatcher.session("notes", "ada")


@covers("chat-url", "chat-ours")
def test_an_agents_message_with_the_command_starts_nothing(bot: ChatBot, public: PublicDemo) -> None:
    ada = bot.user("ada")
    quoting = IncomingEvent(Sender("ada"), text="yes", quoted_text=f"/connect {public.mcp_url}")
    of_no_user = IncomingEvent(Sender(""), command="connect", text=public.mcp_url)
    assert bot.run(bot.dispatcher.handle(quoting, ada.chat)) is False
    bot.run(bot.dispatcher.handle(replace(of_no_user, message_id="7"), ada.chat))
    assert bot.waiting_logins() == []
    assert public.servers == []


@covers("chat-url")
def test_the_list_of_servers_says_that_an_address_works(start: StartUrlBot) -> None:
    bot = start()
    bot.user("ada").send_text("/connect")
    assert ENGLISH.other_address.format(command="/connect") in bot.user("ada").last_card.paragraphs
    bot = start(AllowList(users={"ada"}))
    bot.user("ada").send_text("/connect")
    assert bot.user("ada").last_card.paragraphs == (ENGLISH.no_servers,)


@covers("chat-url")
def test_the_page_of_the_login_is_at_the_host_that_the_card_names(
    start: StartUrlBot, public: PublicDemo
) -> None:
    bot = start()
    ada = bot.user("ada")
    ada.send_text(f"/connect {public.mcp_url}")
    rows = {row.label: row.value for row in ada.last_card.rows}
    assert rows["Check site"] == LOGIN_ORIGIN.removeprefix("https://")
    assert rows["Server"].startswith(MCP_ORIGIN)

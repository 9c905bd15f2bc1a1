"""The logins of the bridge: when it asks for one, and how it ends. In this process, without a client."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import urllib.request
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest

from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.bridge import listeners, relay
from hermes_mcp_auth_remote.bridge.json_rpc import URL_ELICITATION_REQUIRED
from hermes_mcp_auth_remote.bridge.login import BrowserPrompter, ClientLogin
from hermes_mcp_auth_remote.bridge.optional_login import OptionalLogin
from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    McpAuthError,
    RedirectRefused,
    ResponseTooLarge,
    StoreCorrupt,
    TimedOut,
    Unreachable,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.login import Connection, Login, apply_event
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.prompting import prompting
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.terminal import prompt
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN, LoginAnswers, open_listener
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.values import CredentialKey, Server, ServerOptions
from tests.bridge.client import TEST_SECONDS, BridgeClient, McpHandler, run_bridge, run_in_loop
from tests.bridge.raw_server import Reply, Request, serve
from tests.consent_form import approve, deny
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import wait_until
from tests.store.builders import KEY, build_credentials

SERVER = Server(KEY.server_name, "https://notes.example/mcp")
Work = Callable[[ClientLogin], Coroutine[Any, Any, None]]


def run_with_client_login(home: Path, url: str, work: Work) -> list[str]:
    """Run `work` with the logins that a client shows; return the messages of asyncio's exception handler."""
    messages: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: messages.append(context["message"])
        )
        client_login = ClientLogin(AuthService(home), Server("demo", url), None)
        try:
            await work(client_login)
        finally:
            await client_login.close()

    asyncio.run(main())
    # asyncio reports an exception that no caller retrieved when its future is deleted.
    gc.collect()
    return messages


async def start(client_login: ClientLogin) -> Login:
    login = await client_login.start(AuthorizationRequired("demo"))
    assert login is not None
    return login


def follow(redirect: str) -> None:
    with suppress(HTTPError), urllib.request.urlopen(redirect, timeout=10):
        """The page does not matter."""


@covers("bridge-login")
def test_after_the_record_of_an_old_login_is_deleted_the_next_call_starts_a_login(
    tmp_path: Path, demo: Demo
) -> None:
    async def work(client_login: ClientLogin) -> None:
        first = await start(client_login)
        await client_login.service.cancel(first.id)
        (tmp_path / "mcp-tokens" / "logins" / f"{first.id}.json").unlink()
        # A client may repeat its request after the user has accepted.
        await client_login.wait()
        second = await start(client_login)
        assert second.id != first.id

    run_with_client_login(tmp_path, demo.mcp_url, work)


@covers("bridge-login")
def test_a_call_during_the_exchange_of_the_code_starts_no_second_login(tmp_path: Path, demo: Demo) -> None:
    async def work(client_login: ClientLogin) -> None:
        login, logins = await start(client_login), FileStore(tmp_path).logins
        logins.change(login.id, lambda it: apply_event(it, "claim"))
        assert (await start(client_login)).id == login.id
        logins.change(login.id, lambda it: apply_event(it, "release"))
        # The listener still receives the redirect.
        await asyncio.to_thread(follow, await asyncio.to_thread(approve, login.authorization_url))
        assert (await client_login.service.wait_for_login(login.id)).status == "done"

    run_with_client_login(tmp_path, demo.mcp_url, work)


def test_a_failed_login_is_no_unhandled_exception(tmp_path: Path, demo: Demo) -> None:
    async def work(client_login: ClientLogin) -> None:
        login = await start(client_login)
        await asyncio.to_thread(follow, await asyncio.to_thread(deny, login.authorization_url))
        assert (await client_login.service.wait_for_login(login.id)).status == "failed"

    assert run_with_client_login(tmp_path, demo.mcp_url, work) == []


@covers("bridge-login")
def test_if_the_start_is_cancelled_late_neither_listener_nor_login_remain(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners: list[Listener] = []

    async def open_or_cancel(answers: LoginAnswers, redirect_uri: str) -> Listener | None:
        if answers.login is not None:
            raise asyncio.CancelledError
        listener = await open_listener(answers, redirect_uri)
        assert listener is not None
        listeners.append(listener)
        return listener

    async def work(client_login: ClientLogin) -> None:
        start_login = client_login.service.start_login

        async def start_with_other_host(*args: Any, **options: Any) -> Login:
            login = await start_login(*args, **options)
            uri = login.request.redirect_uri.replace("127.0.0.1", "localhost")
            return replace(login, request=replace(login.request, redirect_uri=uri))

        monkeypatch.setattr(prompt, "open_listener", open_or_cancel)
        monkeypatch.setattr(client_login.service, "start_login", start_with_other_host)
        with pytest.raises(asyncio.CancelledError):
            await start(client_login)
        assert await client_login.service.waiting_logins() == []
        [listener] = listeners
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listener.port)

    run_with_client_login(tmp_path, demo.mcp_url, work)


@covers("bridge-optional-login")
@pytest.mark.parametrize(
    "failure",
    [
        RedirectRefused("notes.example redirects the first request to another address."),
        Unreachable("The TLS certificate is from an unknown authority.", "Name its file in SSL_CERT_FILE."),
    ],
    ids=["redirect", "certificate"],
)
def test_calls_at_the_same_time_share_a_failed_probe(tmp_path: Path, failure: McpAuthError) -> None:
    async def main() -> None:
        probes, can_fail = 0, asyncio.Event()

        async def probe() -> bool:
            nonlocal probes
            probes += 1
            await can_fail.wait()
            raise failure

        session = OptionalLogin(AuthService(tmp_path).session(SERVER), probe)
        tasks = [asyncio.create_task(session.header()) for _ in range(5)]
        await asyncio.sleep(0)
        # The first call started the probe, and the others need it.
        tasks[0].cancel()
        await asyncio.sleep(0)
        can_fail.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        # The error names what is wrong. It does not say that a login is needed.
        assert results[1:] == [failure] * 4
        assert probes == 1
        with pytest.raises(type(failure)):
            await session.header()
        assert probes == 2

    asyncio.run(main())


@covers("bridge-optional-login")
@pytest.mark.parametrize("needs_token", [True, False])
@pytest.mark.parametrize(
    "outcome",
    [
        None,
        TimedOut("notes.example did not respond."),
        Unreachable("The connection broke."),
        ResponseTooLarge("1 MiB"),
    ],
    ids=["busy", "timed out", "unreachable", "too large"],
)
def test_the_first_probe_that_tells_decides_whether_a_token_is_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, outcome: McpAuthError | None, *, needs_token: bool
) -> None:
    async def main() -> None:
        outcomes: list[McpAuthError | bool | None] = [outcome, outcome, needs_token]

        async def probe() -> bool | None:
            result = outcomes.pop(0)
            if isinstance(result, McpAuthError):
                raise result
            return result

        session = OptionalLogin(AuthService(tmp_path).session(SERVER), probe)
        for _ in range(2):
            # The request is sent, so that the client learns what the server responds.
            assert await session.header() == ""
        for _ in range(2):
            if needs_token:
                with pytest.raises(AuthorizationRequired):
                    await session.header()
            else:
                assert await session.header() == ""
        assert outcomes == []

    asyncio.run(main())
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert logged == ([] if outcome is None else [f"notes: {outcome}"])


NO_ANSWERS = ["408", "425", "429", "500", "503", "broken connection"]


async def fail_once(reply: Reply, failure: str) -> None:
    if failure.isdigit():
        await reply.send(int(failure))
    else:
        reply.abort()


def bridge_login_options(
    tmp_path: Path, url: str, server_options: ServerOptions | None = None
) -> dict[str, Any]:
    """Return the options of a bridge whose client shows the logins, as `connect --no-browser` sets them."""
    service, server = AuthService(tmp_path), Server("demo", url, server_options or ServerOptions())
    session = service.session(server)
    return {
        "auth": McpAuth(OptionalLogin(session, partial(service.needs_token, server))),
        "client_login": ClientLogin(service, server, None),
        "authorization": session.header,
    }


@covers("bridge-optional-login")
@pytest.mark.parametrize("failure", NO_ANSWERS)
@run_in_loop
async def test_a_server_that_fails_the_probe_and_demands_no_login_needs_none(
    tmp_path: Path, failure: str
) -> None:
    handler = McpHandler()

    async def fail_the_probe(request: Request, reply: Reply) -> None:
        if len(handler.received("initialize")) <= PROBE_ATTEMPTS[failure.isdigit()]:
            await fail_once(reply, failure)
        else:
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "notes"}}
            await reply.result(request, result, Mcp_Session_Id="s1")

    handler.methods["initialize"] = fail_the_probe
    async with serve(handler) as url, run_bridge(url, **bridge_login_options(tmp_path, url)) as client:
        assert (await client.initialize())["result"]["serverInfo"]["name"] == "notes"
        assert "echo" in (await client.request("tools/list"))["result"]
        count = len(handler.requests)
        # A probe has told by now, so each request is sent alone.
        for _ in range(3):
            await client.request("tools/list")
        assert len(handler.received("initialize")) == PROBE_ATTEMPTS[failure.isdigit()] + 2
        assert len([r for r in handler.requests[count:] if r.method == "POST"]) == 3


# A broken connection is tried twice.
PROBE_ATTEMPTS = {True: 1, False: 2}


@covers("bridge-optional-login")
@pytest.mark.parametrize("failure", NO_ANSWERS)
@run_in_loop
async def test_a_server_that_fails_the_probe_and_demands_a_login_gets_no_calls_before_it(
    tmp_path: Path, failure: str
) -> None:
    handler = McpHandler()

    async def refuse(request: Request, reply: Reply) -> None:
        if request.rpc_method == "initialize" and (
            len(handler.received("initialize")) <= PROBE_ATTEMPTS[failure.isdigit()]
        ):
            await fail_once(reply, failure)
        else:
            await reply.send(401, WWW_Authenticate="Bearer")

    handler.methods["initialize"] = refuse
    async with serve(handler) as url, run_bridge(url, **bridge_login_options(tmp_path, url)) as client:
        assert "needs a login" in (await client.initialize())["result"]["instructions"]
        assert [tool["name"] for tool in (await client.request("tools/list"))["result"]["tools"]] == [
            "log_in"
        ]
        count = len(handler.requests)
        for _ in range(3):
            response = await client.request("tools/call", name="add", arguments={"secret": "s3cret"})
            assert "Run `hermes-mcp-auth login demo`" in response["result"]["content"][0]["text"]
        assert len(handler.requests) == count
        assert not any(b"s3cret" in request.body for request in handler.requests)


@covers("bridge-optional-login")
@run_in_loop
async def test_while_the_login_is_missing_the_bridge_sends_no_requests_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LOGIN_CHECK_SECONDS", 0)
    handler, checks, has_checked_often = McpHandler(), 0, asyncio.Event()

    async def accept_only_the_probe(request: Request, reply: Reply) -> None:
        if len(handler.received("initialize")) == 1:
            await reply.result(request, {"protocolVersion": "2025-11-25", "capabilities": {}})
        else:
            await reply.send(401, WWW_Authenticate="Bearer")

    handler.methods["initialize"] = accept_only_the_probe
    async with serve(handler) as url:
        service, server = AuthService(tmp_path), Server("demo", url)
        session = service.session(server)

        async def authorization() -> str:
            nonlocal checks
            checks += 1
            if checks == 20:
                has_checked_often.set()
            return await session.header()

        auth = McpAuth(OptionalLogin(session, partial(service.needs_token, server)))
        options = {"client_login": ClientLogin(service, server, None), "authorization": authorization}
        async with run_bridge(url, auth=auth, **options) as client:
            assert "needs a login" in (await client.initialize())["result"]["instructions"]
            await has_checked_often.wait()
            assert len(handler.requests) == 2


@covers("bridge-optional-login")
def test_requests_after_a_logout_have_no_token_if_the_server_demands_none(tmp_path: Path) -> None:
    async def main() -> None:
        async def probe() -> bool:
            return False

        store, credentials = FileStore(tmp_path), build_credentials()
        assert credentials.tokens is not None
        credentials = replace(credentials, tokens=replace(credentials.tokens, expires_at=None))
        session = OptionalLogin(AuthService(tmp_path).session(SERVER), probe)
        for _ in range(2):
            assert await session.header() == ""
            # Another process logs in and out.
            store.save_login(KEY, credentials)
            assert await session.header() == "Bearer access-0"
            store.delete(KEY)

    asyncio.run(main())


class BrowserCommand:
    """Blocks its thread until `release`, as a command does that opens a page.

    Then it returns `is_opened`, or raises an error if that is None.
    """

    def __init__(self, *, is_opened: bool | None = True) -> None:
        self.is_opened = is_opened
        self.release = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.pages: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, url: str) -> bool:
        self._loop.call_soon_threadsafe(self.pages.put_nowait, url)
        assert self.release.wait(TEST_SECONDS)
        if self.is_opened is None:
            raise UnsafeUrl("The address to open is not safe.")
        return self.is_opened


class BrowserLogin:
    """Calls that need a login, and the prompter that opens its page with a BrowserCommand."""

    def __init__(
        self, home: Path, demo: Demo, *, is_opened: bool | None = True, options: ServerOptions | None = None
    ) -> None:
        self.service = AuthService(home)
        self.server = Server("demo", demo.mcp_url, options or ServerOptions())
        self.command = BrowserCommand(is_opened=is_opened)
        self.browser = BrowserPrompter(self.service, self.server, self.command)
        self.has_shown_outcome = asyncio.Event()

    async def show(self, login: Login) -> None:
        await self.browser.show(login)

    async def join(self, login: Login) -> None:
        await self.browser.join(login)

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:
        await self.browser.show_outcome(login, connection)
        self.has_shown_outcome.set()

    async def call_server(self) -> str:
        with prompting(self, TERMINAL_ORIGIN, flow="auto"):
            return await self.service.session(self.server).header()

    async def follow_redirect(self, page: str) -> None:
        await asyncio.to_thread(follow, await asyncio.to_thread(approve, page))


def is_listening(login: Login) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(login.request.redirect_uri).port or 0)) == 0


@covers("bridge-login")
@run_in_loop
async def test_the_redirect_is_handled_while_the_browser_command_runs(tmp_path: Path, demo: Demo) -> None:
    login = BrowserLogin(tmp_path, demo)
    call = asyncio.create_task(login.call_server())
    # The command may itself load the page: it then waits for the response to the redirect.
    await login.follow_redirect(await login.command.pages.get())
    [record] = await login.service.logins()
    assert record.status == "done"
    # The login counts, also if its command reports a failure.
    login.command.is_opened = False
    login.command.release.set()
    assert (await call).startswith("Bearer ")
    await login.browser.close()


@covers("bridge-login")
@run_in_loop
async def test_a_call_that_is_cancelled_while_the_page_opens_ends_at_once_and_keeps_the_login(
    tmp_path: Path, demo: Demo
) -> None:
    login = BrowserLogin(tmp_path, demo)
    first_call, second_call = (asyncio.create_task(login.call_server()) for _ in range(2))
    page = await login.command.pages.get()
    first_call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first_call
    assert not login.command.release.is_set()
    # The user sees the page, and another call waits for the login.
    await login.follow_redirect(page)
    assert (await second_call).startswith("Bearer ")
    assert login.command.pages.empty()
    login.command.release.set()
    await login.browser.close()


@covers("bridge-login")
@pytest.mark.parametrize("is_cancelled", [True, False])
@pytest.mark.parametrize("is_opened", [False, None], ids=["command fails", "address is unsafe"])
@run_in_loop
async def test_a_login_whose_page_did_not_open_ends_and_frees_its_port(
    tmp_path: Path,
    demo: Demo,
    *,
    is_cancelled: bool,
    is_opened: bool | None,
) -> None:
    login = BrowserLogin(tmp_path, demo, is_opened=is_opened)
    call = asyncio.create_task(login.call_server())
    await login.command.pages.get()
    [record] = await login.service.waiting_logins()
    assert is_listening(record)
    if is_cancelled:
        call.cancel()
        await asyncio.wait({call})
        login.command.release.set()
        await login.has_shown_outcome.wait()
    else:
        login.command.release.set()
        with pytest.raises(UnsafeUrl if is_opened is None else AuthorizationRequired) as caught:
            await call
        assert ("no browser on this machine could be opened" in str(caught.value)) is (is_opened is False)
    assert (await login.service.login(record.id)).status == "cancelled"
    assert not is_listening(record)
    await login.browser.close()


@covers("bridge-login")
@run_in_loop
async def test_a_time_limit_that_ends_while_the_page_opens_is_a_time_limit(
    tmp_path: Path, demo: Demo
) -> None:
    login = BrowserLogin(tmp_path, demo)

    async def call_until_the_page_opens() -> None:
        async with asyncio.timeout(None) as limit:
            page = asyncio.create_task(login.command.pages.get())
            page.add_done_callback(lambda _: limit.reschedule(0))
            await login.call_server()

    with pytest.raises(TimeoutError):
        await call_until_the_page_opens()
    assert [record.status for record in await login.service.logins()] == ["waiting"]
    login.command.release.set()
    await login.browser.close()


def configured_client(demo: Demo) -> ServerOptions:
    """Register a client by hand, for one redirect URI. Each test has a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    client = demo.authorization_server.add_client(f"http://127.0.0.1:{port}/callback")
    return ServerOptions(client_id=client.client_id, redirect_port=port)


ADD = {"name": "add", "arguments": {"a": 2, "b": 3}}


async def elicit(client: BridgeClient) -> dict[str, Any]:
    """Call a tool; return the elicitation that the bridge answers with."""
    response = await client.request("tools/call", **ADD)
    assert response.get("error", {}).get("code") == URL_ELICITATION_REQUIRED, response
    [elicitation] = response["error"]["data"]["elicitations"]
    return dict(elicitation)


async def read_notification(client: BridgeClient, method: str) -> dict[str, Any]:
    while (message := await client.others.get())["method"] != method:
        pass
    return message


class TwoBridges:
    """Two clients that show logins, with one home and one configured client."""

    def __init__(self, home: Path, demo: Demo) -> None:
        options = configured_client(demo)
        self._bridges = [
            run_bridge(demo.mcp_url, **bridge_login_options(home, demo.mcp_url, options)) for _ in range(2)
        ]
        self._stacks = (AsyncExitStack(), AsyncExitStack())

    async def __aenter__(self) -> tuple[BridgeClient, BridgeClient]:
        first, second = [
            await stack.enter_async_context(bridge)
            for stack, bridge in zip(self._stacks, self._bridges, strict=True)
        ]
        for client in (first, second):
            await client.initialize(elicitation={"url": {}})
        return first, second

    async def end_first(self) -> None:
        await self._stacks[0].aclose()

    async def __aexit__(self, *_: object) -> None:
        for stack in self._stacks:
            await stack.aclose()


@covers("bridge-login", "one-prompt")
@run_in_loop
async def test_two_bridges_with_a_configured_client_show_one_login(tmp_path: Path, demo: Demo) -> None:
    async with TwoBridges(tmp_path, demo) as clients:
        # Only the first bridge can listen at the only redirect URI of the client.
        elicitations = [await elicit(client) for client in clients]
        assert elicitations[0] == elicitations[1]
        await asyncio.to_thread(follow, await asyncio.to_thread(approve, elicitations[1]["url"]))
        for client in clients:
            complete = await read_notification(client, "notifications/elicitation/complete")
            assert complete["params"] == {"elicitationId": elicitations[0]["elicitationId"]}
            assert (await client.request("tools/call", **ADD))["result"]["content"][0]["text"] == "5"


@covers("bridge-login", "one-prompt")
@run_in_loop
async def test_the_second_bridge_gets_the_redirect_if_the_first_one_has_ended(
    tmp_path: Path, demo: Demo
) -> None:
    bridges = TwoBridges(tmp_path, demo)
    async with bridges as (first, second):
        page = (await elicit(first))["url"]
        assert (await elicit(second))["url"] == page
        await bridges.end_first()
        # The user calls again, because the browser could not follow the redirect.
        assert (await elicit(second))["url"] == page
        await asyncio.to_thread(follow, await asyncio.to_thread(approve, page))
        await read_notification(second, "notifications/elicitation/complete")
        assert (await second.request("tools/call", **ADD))["result"]["content"][0]["text"] == "5"


@covers("bridge-login", "one-prompt")
def test_a_login_of_another_process_goes_on_if_it_is_declined_here(tmp_path: Path, demo: Demo) -> None:
    async def main() -> None:
        server = Server("demo", demo.mcp_url, configured_client(demo))
        first, second = (ClientLogin(AuthService(tmp_path), server, None) for _ in range(2))
        login = await start(first)
        assert (await start(second)).id == login.id
        await second.cancel()
        assert [it.id for it in await first.service.waiting_logins()] == [login.id]
        assert (await start(second)).id == login.id
        await first.close()
        assert (await start(second)).id == login.id
        # The second process listens now, so the login is its own.
        await second.cancel()
        assert await first.service.waiting_logins() == []
        await second.close()

    asyncio.run(main())


@covers("bridge-login", "one-prompt")
def test_a_login_for_less_access_or_another_address_is_not_shared(tmp_path: Path, demo: Demo) -> None:
    async def main() -> None:
        options = replace(configured_client(demo), scope=frozenset({"mcp:tools"}))
        first = ClientLogin(AuthService(tmp_path), Server("demo", demo.mcp_url, options), None)
        await start(first)
        other_url = demo.mcp_url.replace("/mcp", "/other/mcp")
        for url, name, owner, scope in (
            (demo.mcp_url, "demo", None, {"mcp:tools", "mcp:write"}),
            (other_url, "demo", None, {"mcp:tools"}),
            (demo.mcp_url, "other", None, {"mcp:tools"}),
            (demo.mcp_url, "demo", "telegram:42", {"mcp:tools"}),
        ):
            server = Server(name, url, replace(options, scope=frozenset(scope)))
            second = ClientLogin(AuthService(tmp_path), server, owner)
            assert await second.start(AuthorizationRequired("demo")) is None
        assert len(await first.service.waiting_logins()) == 1
        await first.close()

    asyncio.run(main())


@covers("bridge-login", "one-prompt")
@run_in_loop
async def test_two_browsers_with_a_configured_client_open_one_page(tmp_path: Path, demo: Demo) -> None:
    options = configured_client(demo)
    logins = [BrowserLogin(tmp_path, demo, options=options) for _ in range(2)]
    for login in logins:
        login.command.release.set()
    calls = [asyncio.create_task(login.call_server()) for login in logins]
    pages = [asyncio.create_task(login.command.pages.get()) for login in logins]
    opened, unopened = await asyncio.wait(pages, return_when=asyncio.FIRST_COMPLETED)
    await logins[0].follow_redirect(opened.pop().result())
    headers = await asyncio.gather(*calls)
    assert headers[0] == headers[1] != ""
    assert len(unopened) == 1
    assert not any(task.done() for task in unopened)
    for task in unopened:
        task.cancel()
    for login in logins:
        await login.browser.close()


@covers("bridge-login")
@run_in_loop
async def test_after_a_resumed_login_its_port_is_free_for_the_next_one(tmp_path: Path, demo: Demo) -> None:
    options = configured_client(demo)
    ended, resumed = (BrowserLogin(tmp_path, demo, options=options) for _ in range(2))
    ended.command.release.set()
    call = asyncio.create_task(ended.call_server())
    page = await ended.command.pages.get()
    call.cancel()
    await ended.browser.close()
    await resumed.browser.resume(CredentialKey("demo"))
    await resumed.follow_redirect(page)
    [record] = await resumed.service.logins()
    assert record.status == "done"
    await asyncio.to_thread(wait_until, lambda: not is_listening(record))
    await resumed.browser.close()


@covers("bridge-login", "one-prompt")
@run_in_loop
async def test_a_call_that_waits_gets_the_redirect_if_the_process_that_opened_the_page_has_ended(
    tmp_path: Path, demo: Demo
) -> None:
    options = configured_client(demo)
    ended, waiting = (BrowserLogin(tmp_path, demo, options=options) for _ in range(2))
    ended.command.release.set()
    first_call = asyncio.create_task(ended.call_server())
    page = await ended.command.pages.get()
    second_call = asyncio.create_task(waiting.call_server())
    first_call.cancel()
    await ended.browser.close()
    [record] = await waiting.service.waiting_logins()
    await asyncio.to_thread(wait_until, lambda: is_listening(record))
    await waiting.follow_redirect(page)
    assert (await second_call).startswith("Bearer ")
    assert waiting.command.pages.empty()
    await asyncio.to_thread(wait_until, lambda: not is_listening(record))
    await waiting.browser.close()


@covers("bridge-login")
@run_in_loop
async def test_a_login_can_be_listened_to_again_at_once(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, server = AuthService(tmp_path), Server("demo", demo.mcp_url, configured_client(demo))
    login = await service.start_login(server, TERMINAL_ORIGIN)

    async def wait_for_login_with_slow_end(login_id: str) -> Login:
        try:
            return await AuthService.wait_for_login(service, login_id)
        finally:
            # The cancelled task goes on for some iterations of the event loop.
            for _ in range(20):
                await asyncio.sleep(0)

    monkeypatch.setattr(service, "wait_for_login", wait_for_login_with_slow_end)
    login_listeners = listeners.LoginListeners(service, server)
    for _ in range(2):
        assert await login_listeners.listen(login)
        await asyncio.sleep(0)
        await login_listeners.close_listener(login.id)
    assert await login_listeners.listen(login)
    for _ in range(40):
        await asyncio.sleep(0)
    await login_listeners.close()
    assert not is_listening(login)


@covers("bridge-login")
@run_in_loop
async def test_a_listener_stays_open_while_the_store_cannot_be_read(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "RETRY_SECONDS", 0)
    login = BrowserLogin(tmp_path, demo)
    wait_for_login, errors = login.service.wait_for_login, [StoreCorrupt("A file is damaged.")]

    async def wait_with_error(login_id: str) -> Login:
        if errors:
            raise errors.pop()
        return await wait_for_login(login_id)

    monkeypatch.setattr(login.service, "wait_for_login", wait_with_error)
    call = asyncio.create_task(login.call_server())
    page = await login.command.pages.get()
    login.command.release.set()
    await login.follow_redirect(page)
    assert (await call).startswith("Bearer ")
    assert errors == []
    await login.browser.close()

"""For each situation, count the requests until the first 200, and the prompts to a user.

The counts do not depend on the machine.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult

from benchmarks.login_home import REDIRECT_URI
from benchmarks.measurement import Figure, Scale
from benchmarks.sdk import MemoryStorage, make_provider
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin, Server, ServerOptions
from tests.parts.authorization_server import Behaviour, Demo, serve_demo

CLIENT_METADATA_URL = "https://client.example/metadata.json"
_PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
_ACCEPT_HEADERS = {"Accept": "application/json, text/event-stream"}


@dataclass(slots=True)
class Clock:
    """A clock that the benchmark moves, for the demo's servers and for our client."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        """Return the time in epoch seconds."""
        return self.now


@dataclass(slots=True)
class Person:
    """The user who gets prompts. The server approves at once, so each prompt is one request of a browser."""

    prompts: int = 0

    async def approve(self, url: str) -> str:
        """Open an authorization URL; return the redirect URL."""
        self.prompts += 1
        async with httpx2.AsyncClient() as browser:
            return str((await browser.get(url, follow_redirects=False)).headers["location"])


class OurClient:
    """Our service with an httpx2 client. `restart` stands for another process."""

    def __init__(self, demo: Demo, clock: Clock, home: Path, options: ServerOptions, person: Person) -> None:
        self._home, self._clock, self._person = home, clock, person
        self._server = Server("bench", demo.mcp_url, options)
        self.restart()

    def restart(self) -> None:
        """Start again from the files on disk."""
        self._service = AuthService(self._home, clock=self._clock)

    def expire_token(self) -> None:
        """Do nothing: the service uses the benchmark's clock."""

    async def call(self) -> None:
        """Make one call, and log in if it raises AuthorizationRequired."""
        async with httpx2.AsyncClient(
            auth=McpAuth(self._service.session(self._server)), headers=_ACCEPT_HEADERS
        ) as client:
            try:
                response = await client.post(self._server.url, json=_PING)
            except AuthorizationRequired as error:
                origin, challenge = Origin("terminal"), error.challenge
                login = await self._service.start_login(
                    self._server,
                    origin,
                    redirect_uri=REDIRECT_URI,
                    challenge=challenge if isinstance(challenge, Challenge) else None,
                )
                await self._service.complete_login(
                    login.id, await self._person.approve(login.request.url), origin
                )
                response = await client.post(self._server.url, json=_PING)
            response.raise_for_status()


class SdkClient:
    """The MCP SDK 2.x. Its storage survives restarts."""

    def __init__(self, demo: Demo, client_metadata_url: str | None, person: Person) -> None:
        self._url, self._client_metadata_url, self._person = demo.mcp_url, client_metadata_url, person
        self._storage, self._redirect_url = MemoryStorage(), ""
        self._provider: OAuthClientProvider
        self.restart()

    def restart(self) -> None:
        """Start again from the storage."""
        self._provider = make_provider(
            self._url,
            self._storage,
            self._approve,
            self._read_authorization_response,
            self._client_metadata_url,
        )

    def expire_token(self) -> None:
        """Move the token's expiry into the past: the SDK takes no clock."""
        self._provider.context.token_expiry_time = time.time() - 1

    async def call(self) -> None:
        """Make one call; the provider prompts the user itself."""
        async with httpx2.AsyncClient(auth=self._provider, headers=_ACCEPT_HEADERS) as client:
            (await client.post(self._url, json=_PING)).raise_for_status()

    async def _approve(self, url: str) -> None:
        self._redirect_url = await self._person.approve(url)

    async def _read_authorization_response(self) -> AuthorizationCodeResult:
        parameters = {
            name: values[0] for name, values in parse_qs(urlsplit(self._redirect_url).query).items()
        }
        return AuthorizationCodeResult(
            code=parameters["code"], state=parameters["state"], iss=parameters.get("iss")
        )


@dataclass(frozen=True, slots=True)
class Situation:
    """The preparation for a call, and the fewest requests and prompts that the call can need."""

    label: str
    min_requests: int
    min_prompts: int
    prepare: Callable[[Demo, Clock, OurClient | SdkClient], Awaitable[None]]
    uses_cimd: bool = False
    is_preregistered: bool = False


async def _do_nothing(_demo: Demo, _clock: Clock, _client: OurClient | SdkClient) -> None:
    return


async def _call_and_restart(_demo: Demo, _clock: Clock, client: OurClient | SdkClient) -> None:
    await client.call()
    client.restart()


async def _let_token_expire(_demo: Demo, clock: Clock, client: OurClient | SdkClient) -> None:
    await client.call()
    clock.now += 7200
    client.expire_token()


async def _let_token_expire_and_restart(_demo: Demo, clock: Clock, client: OurClient | SdkClient) -> None:
    await client.call()
    clock.now += 7200
    client.restart()


async def _revoke_access_tokens(demo: Demo, _clock: Clock, client: OurClient | SdkClient) -> None:
    await client.call()
    demo.authorization_server.ledger.revoke_access_tokens()


async def _revoke_all_tokens(demo: Demo, _clock: Clock, client: OurClient | SdkClient) -> None:
    await client.call()
    demo.authorization_server.ledger.revoke_everything()


SITUATIONS = (
    Situation("no credentials", 6, 1, _do_nothing),
    Situation("no credentials, client ID metadata document", 5, 1, _do_nothing, uses_cimd=True),
    Situation("no credentials, pre-registered client", 5, 1, _do_nothing, is_preregistered=True),
    Situation("token valid, after a restart", 1, 0, _call_and_restart),
    Situation("access token over, same process", 2, 0, _let_token_expire),
    Situation("access token over, after a restart", 2, 0, _let_token_expire_and_restart),
    Situation("access token revoked", 3, 0, _revoke_access_tokens),
    Situation("both tokens revoked", 4, 1, _revoke_all_tokens),
)


@contextmanager
def _run_demo(situation: Situation) -> Generator[tuple[Demo, Clock, Path]]:
    clock = Clock()
    behaviour = Behaviour(auto_approve=True, cimd_supported=situation.uses_cimd)
    with tempfile.TemporaryDirectory() as folder, serve_demo(behaviour, clock=clock) as demo:
        demo.authorization_server.client_documents[CLIENT_METADATA_URL] = {
            "client_id": CLIENT_METADATA_URL,
            "client_name": "bench",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        yield demo, clock, Path(folder)


def count_requests(situation: Situation, *, is_ours: bool) -> tuple[int, int]:
    """Run a situation; return the requests until the first 200, and the prompts."""
    with _run_demo(situation) as (demo, clock, home):
        options = ServerOptions(
            client_id=demo.authorization_server.add_client(REDIRECT_URI).client_id
            if situation.is_preregistered
            else None,
            client_metadata_url=CLIENT_METADATA_URL if situation.uses_cimd else None,
        )
        person = Person()
        client: OurClient | SdkClient
        if is_ours:
            client = OurClient(demo, clock, home, options, person)
        else:
            client = SdkClient(demo, options.client_metadata_url, person)

        async def count_call() -> tuple[int, int]:
            await situation.prepare(demo, clock, client)
            before, person.prompts = len(demo.authorization_server.requests), 0
            await client.call()
            # Do not count the requests of the user's browser.
            return len(demo.authorization_server.requests) - before - person.prompts, person.prompts

        return asyncio.run(count_call())


def measure_figures(scale: Scale) -> list[Figure]:
    """Count each situation only once: counts have no noise."""
    figures: list[Figure] = []
    for situation in SITUATIONS[: scale.choose_size(len(SITUATIONS), 1)]:
        (requests, prompts) = count_requests(situation, is_ours=True)
        # The SDK uses an operator's client only if the storage has its OAuthClientInformationFull.
        peer = {} if situation.is_preregistered else {"mcp 2.x": count_requests(situation, is_ours=False)}
        what, least = situation.label, "the least there can be"
        peers = {name: float(count) for name, (count, _) in peer.items()}
        figures.append(Figure(f"requests: {what}", "", requests, least, situation.min_requests, 1, peers))
        if situation.min_prompts or prompts or any(count for _, count in peer.values()):
            peers = {name: float(count) for name, (_, count) in peer.items()}
            figures.append(Figure(f"prompts: {what}", "", prompts, least, situation.min_prompts, 1, peers))
    return figures

"""The lives of logins: begun, shown by others, finished by a text, cancelled, expired (table: `login`).

Everything is in the store before anybody sees it, so a login is finished by whichever process gets the
answer, also after the one that began it is gone. No event loop waits for a file: reads and writes go to
threads, but for a login's last mark when its task is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from hermes_mcp_auth_remote.errors import (
    LoginError,
    LoginExpired,
    McpAuthError,
    PasteRefused,
    StoreError,
    TokenRefused,
)
from hermes_mcp_auth_remote.keys import new_proof_key
from hermes_mcp_auth_remote.login import (
    MAX_PASTES,
    Event,
    Login,
    Status,
    follow,
    is_expired,
    is_same_question,
    refusal,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse, read_authorization_response
from hermes_mcp_auth_remote.oauth.token import Tokens, exchange
from hermes_mcp_auth_remote.service.beginning import begun, changed_over
from hermes_mcp_auth_remote.service.devices import Devices
from hermes_mcp_auth_remote.service.flights import landed
from hermes_mcp_auth_remote.service.waiting import held
from hermes_mcp_auth_remote.service.world import Run, World
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import Flow, Key, Origin, Secret, Server

# A login may be finished by another process, which can only tell us through the store.
WATCH_SECONDS = 0.3
# No exchange takes longer, two requests and the wait for the lock: whoever claimed the login is gone.
EXCHANGE_SECONDS = 120.0


class Logins:
    """Begins logins and brings them to their end."""

    def __init__(
        self, world: World, server_of: Callable[[Login], Server], poll_run: Run | None = None
    ) -> None:
        self._world = world
        self._devices = Devices(world, self, server_of, poll_run)

    async def begin(
        self,
        server: Server,
        key: Key,
        origin: Origin,
        *,
        redirect_uri: str | None = None,
        challenge: Challenge | None = None,
        flow: Flow | None = None,
    ) -> Login:
        """Begin a login and store it. Stored credentials stay as they are until it succeeds.

        `challenge` is what a 401 or 403 said, where there was one. Raises a ServerError, NetworkError,
        ConfigError or StoreError.
        """
        login = await begun(
            self._world, server, key, origin, redirect_uri=redirect_uri, challenge=challenge, flow=flow
        )
        await asyncio.to_thread(self._add, login, login.begun_at)
        return login

    async def switch(self, login_id: str, flow: Flow, server: Server) -> Login:
        """Let a login that waits go on by another flow, or with a new code for a device; returns it.

        What was shown of it before is worth nothing then. Raises a LoginError, or what stands in the way:
        the login then goes on as before.
        """
        login = await asyncio.to_thread(self.get, login_id)
        after = await changed_over(self._world, server, login, flow)

        def switch(it: Login) -> Login:
            if it.status == "waiting" and not is_same_question(it, login):
                raise PasteRefused("This login has just been changed over elsewhere.", "Look at it again.")
            return replace(after, status=follow(it, "switch").status)

        return await self._change(login_id, switch)

    def _add(self, login: Login, now: float) -> None:
        self._world.store.logins.purge(now)
        self._world.store.logins.add(login)

    async def finish(self, login_id: str, text: str, origin: Origin, server: Server) -> Credentials:
        """Finish a login with what a person pasted or a browser brought; `text` is hostile.

        Returns what is now stored. Raises PasteRefused where the login goes on waiting, another LoginError,
        or what the token request raised: then the login has failed.
        """
        login, response = await asyncio.to_thread(self._claim, login_id, text, origin)
        try:
            sign = await asyncio.to_thread(self._world.signer, server)
            proof_key = new_proof_key() if login.request.dpop else None
            prover, now = self._world.prover(proof_key), self._world.clock()
            tokens = await self._world.run(
                exchange(response, login.request, now, sign=sign, prover=prover), server
            )
        except TokenRefused as refused:
            if response.is_bare and refused.error == "invalid_grant":
                await self._change(
                    login_id, lambda it: replace(follow(it, "release"), expires_at=login.expires_at)
                )
                raise PasteRefused(f"{login.issuer_host} does not know that code.") from None
            await asyncio.to_thread(self._abandon, login, refused)
            raise
        except McpAuthError as trouble:
            await asyncio.to_thread(self._abandon, login, trouble)
            raise
        except BaseException:
            # Ctrl-C between sending the code and its answer: the code is spent.
            self._abandon(login, LoginError("This login was interrupted."))
            raise
        return await self.complete(login, tokens, proof_key)

    async def complete(self, login: Login, tokens: Tokens, proof_key: Secret | None) -> Credentials:
        """Store what a claimed login brought, and return it; raises StoreError, and the login has failed."""
        credentials = self._credentials(login, tokens)
        if tokens.scheme == "DPoP":
            credentials = replace(credentials, proof_key=proof_key)
        # From here on an interruption loses nothing: the flight goes on to its end.
        await landed(self._world.keeping.join(login.id, lambda: self._keep(login, credentials)))
        return credentials

    async def _keep(self, login: Login, credentials: Credentials) -> None:
        """Store what a login brought, in a flight's own thread."""
        store = self._world.store
        try:
            # A refresh under way elsewhere must not write its answer over the new tokens.
            async with held(store.lock(login.key)):
                store.replace(login.key, credentials)
        except StoreError as trouble:
            self._abandon(login, trouble)
            raise
        with contextlib.suppress(StoreError, LoginError):
            store.logins.change(login.id, lambda it: follow(it, "succeed"))

    def _claim(self, login_id: str, text: str, origin: Origin) -> tuple[Login, AuthorizationResponse]:
        """Read the text for this login and take the login for ourselves; exactly one caller can."""
        store = self._world.store.logins
        login = self.get(login_id)
        if login.status != "waiting":
            raise refusal(login)
        if not _may_finish(origin, login.origin):
            raise PasteRefused(
                "This login was begun somewhere else.",
                "Paste where the login was begun, as whoever began it.",
            )
        if login.device is not None:
            raise PasteRefused(
                "This login waits for a code that is entered on another device, and for no paste.",
                "Enter the code there, or change this login over to pasting first.",
            )
        try:
            response = read_authorization_response(
                text, login.request, accept_bare_code=_binds_the_code(login) and self._is_only_one(login)
            )
        except PasteRefused as refused:
            counted = store.change(login_id, lambda it: replace(it, pastes=it.pastes + 1))
            if counted.pastes >= MAX_PASTES and origin.platform != "terminal":
                counted = self._failed(
                    login_id, LoginError("Too many wrong answers were pasted."), was="waiting"
                )
            raise (refused if counted.status == "waiting" else refusal(counted)) from None
        except LoginError as denied:
            ended = self._failed(login_id, denied, was="waiting")
            raise (denied if ended.status == "failed" else refusal(ended)) from None
        self.claim(login)
        return login, response

    def claim(self, login: Login) -> Login:
        """Take a login for the exchange of what answers it; one caller can, others get a LoginError."""
        now = self._world.clock()

        def claim(it: Login) -> Login:
            # Time went by since it was read.
            it = _expired(it) if is_expired(it, now) else it
            if it.status == "waiting" and not is_same_question(it, login):
                raise PasteRefused("This login has just been changed over elsewhere.", "Look at it again.")
            # From now on the time is not the person's, but the exchange's.
            return replace(follow(it, "claim"), expires_at=now + EXCHANGE_SECONDS)

        return self._world.store.logins.change(login.id, claim)

    def _is_only_one(self, login: Login) -> bool:
        """True where a code alone can mean no other login: not of this owner, not of this sender."""
        now = self._world.clock()
        waiting = [
            each
            for each in self._world.store.logins.all()
            if each.status == "waiting"
            and not is_expired(each, now)
            and (each.key.owner == login.key.owner or each.origin == login.origin)
        ]
        return len(waiting) == 1

    def get(self, login_id: str) -> Login:
        """Return a login as it is now, expired where its time is over; raises LoginNotFound."""
        return self.judged(self._world.store.logins.get(login_id))

    def judged(self, login: Login) -> Login:
        """Return a login that was read as the clock has it: expired, or failed, where its time is over."""
        now = self._world.clock()
        if is_expired(login, now):
            return self._world.store.logins.change(login.id, _expired)
        if login.status == "exchanging" and now >= login.expires_at:
            gone = LoginError("The process that finished this login did not live to its end.")
            return self._failed(login.id, gone, was="exchanging")
        return login

    async def settled(self, login_id: str) -> Login:
        """Wait until a login is over, however and wherever that happens, and return it."""
        while True:
            login = await asyncio.to_thread(self.get, login_id)
            if login.is_over:
                return login
            if login.device is not None and login.status == "waiting":
                await self._devices.waited(login)
            else:
                await asyncio.sleep(WATCH_SECONDS)

    async def cancel(self, login_id: str) -> Login:
        """Cancel a login that waits; one that is over, or being exchanged, stays as it is."""
        return await self._change(login_id, lambda it: follow(it, "cancel") if it.status == "waiting" else it)

    async def note_messages(self, login_id: str, messages: tuple[str, ...]) -> Login:
        """Keep the ids of the chat messages that show a login, and return it."""
        return await self._change(login_id, lambda it: replace(it, messages=messages))

    async def _change(self, login_id: str, change: Callable[[Login], Login]) -> Login:
        return await asyncio.to_thread(self._world.store.logins.change, login_id, change)

    def _abandon(self, login: Login, why: McpAuthError) -> None:
        """Let a login fail that was being exchanged; what the disk says to that hides nothing from people."""
        with contextlib.suppress(StoreError, LoginError):
            self._failed(login.id, why, was="exchanging")
            self._drop_unknown(login, why)

    def refuse(self, login: Login, why: McpAuthError) -> None:
        """Let a login fail whose device was refused, unless it has been changed over since."""
        is_same = is_same_question(self._world.store.logins.get(login.id), login)
        if is_same:
            self._failed(login.id, why, was="waiting")
            self._drop_unknown(login, why)

    def _drop_unknown(self, login: Login, why: McpAuthError) -> None:
        if isinstance(why, TokenRefused) and why.error == "invalid_client":
            # The next login registers anew; with this client nothing could be refreshed either.
            self._world.store.drop_client(login.key, login.request.client)

    def _failed(self, login_id: str, why: McpAuthError, *, was: Status) -> Login:
        """Let a login of this status fail, and return it; one of another status stays as it is."""

        def change(login: Login) -> Login:
            if login.status != was:
                return login
            failure = (str(why), why.advice)
            event: Event = "expire" if was == "waiting" and isinstance(why, LoginExpired) else "fail"
            return replace(follow(login, event), failure=failure, failure_code=why.code)

        return self._world.store.logins.change(login_id, change)

    def _credentials(self, login: Login, tokens: Tokens) -> Credentials:
        request = login.request
        binding = Binding(
            server=login.key.server,
            server_url=login.server_url,
            issuer=request.issuer,
            client_id=request.client.client_id,
            resource=request.resource,
            requested_scope=request.scope,
            account=tokens.account,
            connected_at=self._world.clock(),
            refresh_expires_at=tokens.refresh_expires_at,
        )
        return Credentials(tokens, request.client, login.authorization_server, binding)


def _binds_the_code(login: Login) -> bool:
    """True where PKCE is known to be in use: all that ties a code alone to this login."""
    issuer = login.authorization_server
    return "S256" in (issuer.code_challenge_methods_supported or ()) and not issuer.is_guessed


def _may_finish(here: Origin, begun: Origin) -> bool:
    # Whoever sits at a terminal of this account can read the store anyway; a chat is held to the chat.
    if here.platform == "terminal":
        return True
    # Begun for a user elsewhere, it names no chat and no bot: wherever that user is asked.
    return here == replace(begun, chat=begun.chat or here.chat, bot=begun.bot or here.bot)


def _expired(login: Login) -> Login:
    if login.status != "waiting":
        return login
    late = LoginExpired("This login was not finished in time.")
    return replace(follow(login, "expire"), failure=(str(late), late.advice), failure_code=late.code)

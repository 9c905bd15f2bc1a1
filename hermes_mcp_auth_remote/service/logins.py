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
from hermes_mcp_auth_remote.keys import can_sign, check_can_sign, new_proof_key
from hermes_mcp_auth_remote.login import (
    ID_BYTES,
    MAX_PASTES,
    Login,
    Status,
    follow,
    is_expired,
    refusal,
)
from hermes_mcp_auth_remote.oauth.authorization import STATE_BYTES, VERIFIER_BYTES
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.preparation import Chance, Held, prepare
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse, read_authorization_response
from hermes_mcp_auth_remote.oauth.token import Tokens, exchange
from hermes_mcp_auth_remote.service.flights import landed
from hermes_mcp_auth_remote.service.redirects import redirect_uri_for
from hermes_mcp_auth_remote.service.waiting import held
from hermes_mcp_auth_remote.service.world import World
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Key, Origin, Secret, Server

# A login may be finished by another process, which can only tell us through the store.
WATCH_SECONDS = 0.3
# No exchange takes longer, two requests and the wait for the lock: whoever claimed the login is gone.
EXCHANGE_SECONDS = 120.0


class Logins:
    """Begins logins and brings them to their end."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def begin(
        self,
        server: Server,
        key: Key,
        origin: Origin,
        *,
        redirect_uri: str | None = None,
        challenge: Challenge | None = None,
    ) -> Login:
        """Begin a login and store it. Stored credentials stay as they are until it succeeds.

        `challenge` is what a 401 or 403 said, where there was one. Raises a ServerError, NetworkError,
        ConfigError or StoreError.
        """
        world = self._world
        stored = await asyncio.to_thread(world.store.read, key)
        known = await asyncio.to_thread(self._held, key, stored)
        if redirect_uri is None:
            redirect_uri = redirect_uri_for(server, stored.client, world.entropy)
        chance = Chance(
            state=Secret(world.entropy(STATE_BYTES)), code_verifier=Secret(world.entropy(VERIFIER_BYTES))
        )
        if server.options.dpop:
            check_can_sign("Proofs (DPoP)")
        sign = await asyncio.to_thread(world.signer, server)
        preparing = prepare(
            server,
            chance,
            redirect_uri,
            world.clock(),
            held=known,
            challenge=challenge,
            sign=sign,
            can_prove=can_sign(),
        )
        prepared = await world.run(preparing, server)
        now = world.clock()
        request = prepared.request
        seconds = min(server.options.login_seconds, MAX_LOGIN_SECONDS)
        if request.lifetime_seconds is not None:
            seconds = min(seconds, int(request.lifetime_seconds))
        granted = stored.tokens.scope if stored.tokens and stored.tokens.scope else frozenset[str]()
        login = Login(
            id=world.entropy(ID_BYTES),
            key=key,
            server_url=server.url,
            request=request,
            authorization_server=prepared.authorization_server,
            origin=origin,
            begun_at=now,
            expires_at=now + seconds,
            added_scope=(request.scope or frozenset()) - granted if granted else frozenset(),
        )
        await asyncio.to_thread(self._add, login, now)
        return login

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
        credentials = self._credentials(login, tokens)
        if tokens.scheme == "DPoP":
            credentials = replace(credentials, proof_key=proof_key)
        # From here on an interruption loses nothing: the flight goes on to its end.
        await landed(self._world.keeping.join(login_id, lambda: self._keep(login, credentials)))
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
        try:
            response = read_authorization_response(
                text, login.request, accept_bare_code=self._is_only_one(login)
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
        now = self._world.clock()

        def claim(it: Login) -> Login:
            # Time went by since it was read.
            it = _expired(it) if is_expired(it, now) else it
            # From now on the time is not the person's, but the exchange's.
            return replace(follow(it, "claim"), expires_at=now + EXCHANGE_SECONDS)

        store.change(login_id, claim)
        return login, response

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
        store = self._world.store.logins
        login = store.get(login_id)
        now = self._world.clock()
        if is_expired(login, now):
            return store.change(login_id, _expired)
        if login.status == "exchanging" and now >= login.expires_at:
            gone = LoginError("The process that finished this login did not live to its end.")
            return self._failed(login_id, gone, was="exchanging")
        return login

    async def settled(self, login_id: str) -> Login:
        """Wait until a login is over, however and wherever that happens, and return it."""
        while True:
            login = await asyncio.to_thread(self.get, login_id)
            if login.is_over:
                return login
            await asyncio.sleep(WATCH_SECONDS)

    async def cancel(self, login_id: str) -> Login:
        """Cancel a login that waits; one that is over, or being exchanged, stays as it is."""
        return await self._change(login_id, lambda it: follow(it, "cancel") if it.status == "waiting" else it)

    async def _change(self, login_id: str, change: Callable[[Login], Login]) -> Login:
        return await asyncio.to_thread(self._world.store.logins.change, login_id, change)

    def _abandon(self, login: Login, why: McpAuthError) -> None:
        """Let a login fail that was being exchanged; what the disk says to that hides nothing from people."""
        with contextlib.suppress(StoreError, LoginError):
            self._failed(login.id, why, was="exchanging")
            if isinstance(why, TokenRefused) and why.error == "invalid_client":
                # The next login registers anew; with this client nothing could be refreshed either.
                self._world.store.drop_client(login.key, login.request.client)

    def _failed(self, login_id: str, why: McpAuthError, *, was: Status) -> Login:
        """Let a login of this status fail, and return it; one of another status stays as it is."""

        def change(login: Login) -> Login:
            if login.status != was:
                return login
            failure = (str(why), why.advice)
            return replace(follow(login, "fail"), failure=failure, failure_code=why.code)

        return self._world.store.logins.change(login_id, change)

    def _held(self, key: Key, stored: Credentials) -> Held:
        issuer = stored.authorization_server
        return Held(
            client=stored.client,
            issuer=issuer.issuer if issuer else None,
            scope=(stored.tokens.scope if stored.tokens else None) or frozenset(),
            metadata_document_refused=self._world.store.is_metadata_document_refused(key),
        )

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


def _may_finish(here: Origin, begun: Origin) -> bool:
    # Whoever sits at a terminal of this account can read the store anyway; a chat is held to the chat.
    return here.platform == "terminal" or here == begun


def _expired(login: Login) -> Login:
    if login.status != "waiting":
        return login
    late = LoginExpired("This login was not finished in time.")
    return replace(follow(login, "expire"), failure=(str(late), late.advice), failure_code=late.code)

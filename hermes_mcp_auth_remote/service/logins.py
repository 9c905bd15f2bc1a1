"""The lives of logins: begun, shown by others, finished by a text, cancelled, expired (table: `login`).

Everything is in the store before anybody sees it, so a login is finished by whichever process gets the
answer, also after the one that began it is gone. No event loop waits for a file: reads and writes go to
threads, but for a login's last mark when its task is cancelled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace

from hermes_mcp_auth_remote.errors import (
    LoginError,
    McpAuthError,
    PasteRefused,
    StillExchanging,
    TimedOut,
    TokenRefused,
)
from hermes_mcp_auth_remote.exit_hold import ExitHold
from hermes_mcp_auth_remote.login import (
    MAX_PASTES,
    Login,
    follow,
    is_expired,
    is_same_question,
    refusal,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse, read_authorization_response
from hermes_mcp_auth_remote.oauth.token import exchange
from hermes_mcp_auth_remote.service.complete_login import Ending, binds_the_code, may_finish
from hermes_mcp_auth_remote.service.dependencies import Run, World
from hermes_mcp_auth_remote.service.device_logins import Devices
from hermes_mcp_auth_remote.service.single_flight import landed
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Flow, Key, Origin, Secret, Server

# A login may be finished by another process, which can only tell us through the store.
WATCH_SECONDS = 0.3
# What has been over for an hour goes as somebody begins, at most so often.
PURGE_SECONDS = 60.0


class Logins(Ending):
    """Begins logins, takes what answers them, and tells of their end."""

    def __init__(
        self, world: World, server_of: Callable[[Login], Server], poll_run: Run | None = None
    ) -> None:
        super().__init__(world, server_of)
        self._devices = Devices(world, self, server_of, poll_run)
        self._purged_at = -math.inf

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
        # Loaded when somebody logs in; most processes have tokens, and a bot is to hear people soon.
        from hermes_mcp_auth_remote.service.start_login import begun  # noqa: PLC0415

        login = await begun(
            self._world, server, key, origin, redirect_uri=redirect_uri, challenge=challenge, flow=flow
        )
        await run_file_work(self._add, login, login.begun_at)
        return login

    async def switch(self, login_id: str, flow: Flow, server: Server) -> Login:
        """Let a login that waits go on by another flow, or with a new code for a device; returns it.

        What was shown of it before is worth nothing then. Raises a LoginError, or what stands in the way:
        the login then goes on as before.
        """
        from hermes_mcp_auth_remote.service.start_login import changed_over  # noqa: PLC0415  as in `begin`

        login = await run_file_work(self.get, login_id)
        after = await changed_over(self._world, server, login, flow)

        def switch(it: Login) -> Login:
            if it.status == "waiting" and not is_same_question(it, login):
                raise PasteRefused("This login has just been changed over elsewhere.", "Look at it again.")
            # A message may have been noted since it was read.
            return replace(after, status=follow(it, "switch").status, messages=it.messages)

        return await self._change(login_id, switch)

    def _add(self, login: Login, now: float) -> None:
        # A look through all of them, which many who begin at once need not repeat.
        if not self._purged_at <= now < self._purged_at + PURGE_SECONDS:
            self._world.store.logins.purge(now)
            self._purged_at = now
        self._world.store.logins.add(login)

    async def finish(self, login_id: str, text: Secret, origin: Origin, server: Server) -> Credentials:
        """Finish a login with what a person pasted or a browser brought; `text` is hostile.

        Returns what is now stored. Raises PasteRefused where the login goes on waiting, another LoginError,
        or what the token request raised: then the login has failed. Raises StillExchanging if the server got
        the code and takes too long: the login then stays `exchanging` until an answer ends it. Being
        cancelled is the same: a code that was sent is exchanged; one that was not sent never is.
        """
        login, response = await run_file_work(self._claim, login_id, text, origin)
        hold, limits = ExitHold(), self._world.limits
        flight = self._world.exchanges.join(
            login_id, lambda: self._exchange(hold, login, response, origin, server), server.url
        )
        try:
            return await landed(flight, limits.caller_seconds)
        except TimeoutError:
            if flight.done():
                return flight.result()
            if hold.abandon():
                late = TimedOut(f"{login.issuer_host} could not be reached in time.", LoginError.advice)
                await run_file_work(self._abandon, login, late)
                raise late from None
            raise StillExchanging(f"{hold.host} got the code but did not answer in time.") from None
        except McpAuthError:
            raise
        except BaseException:
            if hold.abandon():
                # Ctrl-C before the code was sent.
                self._abandon(login, LoginError("This login was interrupted."))
            raise

    async def _exchange(
        self, hold: ExitHold, login: Login, response: AuthorizationResponse, origin: Origin, server: Server
    ) -> Credentials:
        """Exchange a code and store what comes, in a flight's own thread; raises as `finish` does."""
        with hold:
            try:
                sign = self._world.signer(server)
                proof_key = new_proof_key() if login.request.dpop else None
                prover, now = self._world.prover(proof_key), self._world.clock()
                asking = exchange(response, login.request, now, sign=sign, prover=prover)
                tokens = await self._world.run(asking, server)
            except TokenRefused as refused:
                if response.is_bare and refused.error == "invalid_grant":
                    self._world.store.logins.change(
                        login.id, lambda it: replace(follow(it, "release"), expires_at=login.expires_at)
                    )
                    unknown = PasteRefused(f"{login.issuer_host} does not know that code.")
                    raise self._counted(login.id, unknown, origin) from None
                self._abandon(login, refused)
                raise
            except McpAuthError as trouble:
                self._abandon(login, trouble)
                raise
            return await self.complete(login, tokens, proof_key)

    def _claim(self, login_id: str, text: Secret, origin: Origin) -> tuple[Login, AuthorizationResponse]:
        """Read the text for this login and take the login for ourselves; exactly one caller can."""
        login = self.get(login_id)
        if login.status != "waiting":
            raise refusal(login)
        if not may_finish(login, origin):
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
            accepts_bare = binds_the_code(login) and self._is_only_one(login)
            response = read_authorization_response(
                text.reveal(), login.request, accept_bare_code=accepts_bare
            )
        except PasteRefused as refused:
            raise self._counted(login_id, refused, origin) from None
        except LoginError as denied:
            ended = self._failed(login_id, denied, was="waiting")
            raise (denied if ended.status == "failed" else refusal(ended)) from None
        self.claim(login)
        return login, response

    def _counted(self, login_id: str, refused: PasteRefused, origin: Origin) -> LoginError:
        """Count a paste that was refused; return that refusal, or why the login takes no more."""
        store = self._world.store.logins
        counted = store.change(login_id, lambda it: replace(it, pastes=it.pastes + 1))
        if counted.pastes >= MAX_PASTES and origin.platform != "terminal":
            counted = self._failed(login_id, LoginError("Too many wrong answers were pasted."), was="waiting")
        return refused if counted.status == "waiting" else refusal(counted)

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

    async def settled(self, login_id: str) -> Login:
        """Wait until a login is over, however and wherever that happens, and return it."""
        while True:
            login = await run_file_work(self.get, login_id)
            if login.is_over:
                return login
            if login.device is not None and login.status == "waiting":
                await self._devices.waited(login)
            else:
                await asyncio.sleep(WATCH_SECONDS)

    async def cancel(self, login_id: str) -> Login:
        """Cancel a login that waits; one that is over, or being exchanged, stays as it is."""
        return await self._change(login_id, lambda it: follow(it, "cancel") if it.status == "waiting" else it)

    async def note_prompt(self, login_id: str, message: str) -> Login:
        """Keep the id of the chat message that shows a login from now on, before all others; return it."""

        def note(it: Login) -> Login:
            return replace(it, messages=(message, *(each for each in it.messages if each != message)))

        return await self._change(login_id, note)

    async def note_messages(self, login_id: str, messages: tuple[str, ...]) -> Login:
        """Keep the ids of the chat messages that show a login, and return it."""
        return await self._change(login_id, lambda it: replace(it, messages=messages))

    async def _change(self, login_id: str, change: Callable[[Login], Login]) -> Login:
        return await run_file_work(self._world.store.logins.change, login_id, change)

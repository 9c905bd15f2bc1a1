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
    TokenError,
)
from hermes_mcp_auth_remote.exit_hold import ExitHold
from hermes_mcp_auth_remote.login import (
    MAX_PASTE_ATTEMPTS,
    Login,
    apply_event,
    is_expired,
    is_same_prompt,
    login_state_error,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse, read_authorization_response
from hermes_mcp_auth_remote.oauth.token import exchange_code
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion, can_complete, has_confirmed_pkce
from hermes_mcp_auth_remote.service.dependencies import Dependencies, ExchangeRunner
from hermes_mcp_auth_remote.service.device_logins import DeviceLogins
from hermes_mcp_auth_remote.service.single_flight import join
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Flow, Origin, Secret, Server

# A login may be finished by another process, which can only tell us through the store.
STORE_CHECK_SECONDS = 0.3
# What has been over for an hour goes as somebody begins, at most so often.
PURGE_INTERVAL_SECONDS = 60.0


class Logins(LoginCompletion):
    """Begins logins, takes what answers them, and tells of their end."""

    def __init__(
        self,
        deps: Dependencies,
        server_of: Callable[[Login], Server],
        run_poll_exchange: ExchangeRunner | None = None,
    ) -> None:
        super().__init__(deps, server_of)
        self._device_logins = DeviceLogins(deps, self, server_of, run_poll_exchange)
        self._purged_at = -math.inf

    async def start_login(
        self,
        server: Server,
        key: CredentialKey,
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
        from hermes_mcp_auth_remote.service.start_login import start_login  # noqa: PLC0415

        login = await start_login(
            self._deps, server, key, origin, redirect_uri=redirect_uri, challenge=challenge, flow=flow
        )
        await run_file_work(self._add_login, login, login.started_at)
        return login

    async def switch_flow(self, login_id: str, flow: Flow, server: Server) -> Login:
        """Let a login that waits go on by another flow, or with a new code for a device; returns it.

        What was shown of it before is worth nothing then. Raises a LoginError, or what stands in the way:
        the login then goes on as before.
        """
        from hermes_mcp_auth_remote.service.start_login import switch_flow  # noqa: PLC0415  as in `begin`

        login = await run_file_work(self.get, login_id)
        after = await switch_flow(self._deps, server, login, flow)

        def apply_switch(current: Login) -> Login:
            if current.status == "waiting" and not is_same_prompt(current, login):
                raise PasteRefused("This login has just been changed over elsewhere.", "Look at it again.")
            # A message may have been noted since it was read.
            return replace(
                after, status=apply_event(current, "switch").status, message_ids=current.message_ids
            )

        return await self._change_login(login_id, apply_switch)

    def _add_login(self, login: Login, now: float) -> None:
        # A look through all of them, which many who begin at once need not repeat.
        if not self._purged_at <= now < self._purged_at + PURGE_INTERVAL_SECONDS:
            self._deps.store.logins.remove_expired(now)
            self._purged_at = now
        self._deps.store.logins.add(login)

    async def complete_login(
        self, login_id: str, text: Secret, origin: Origin, server: Server
    ) -> Credentials:
        """Finish a login with what a person pasted or a browser brought; `text` is hostile.

        Returns what is now stored. Raises PasteRefused where the login goes on waiting, another LoginError,
        or what the token request raised: then the login has failed. Raises StillExchanging if the server got
        the code and takes too long: the login then stays `exchanging` until an answer ends it. Being
        cancelled is the same: a code that was sent is exchanged; one that was not sent never is.
        """
        login, response = await run_file_work(self._parse_and_claim, login_id, text, origin)
        hold, limits = ExitHold(), self._deps.limits
        flight = self._deps.exchange_flights.submit(
            login_id, lambda: self._exchange_code(hold, login, response, origin, server), server.url
        )
        try:
            return await join(flight, limits.caller_seconds)
        except TimeoutError:
            if flight.done():
                return flight.result()
            if hold.cancel_if_unsent():
                late = TimedOut(
                    f"{login.authorization_host} could not be reached in time.", LoginError.advice
                )
                await run_file_work(self._fail_exchange, login, late)
                raise late from None
            raise StillExchanging(f"{hold.host} got the code but did not answer in time.") from None
        except McpAuthError:
            raise
        except BaseException:
            if hold.cancel_if_unsent():
                # Ctrl-C before the code was sent.
                self._fail_exchange(login, LoginError("This login was interrupted."))
            raise

    async def _exchange_code(
        self,
        exit_hold: ExitHold,
        login: Login,
        response: AuthorizationResponse,
        origin: Origin,
        server: Server,
    ) -> Credentials:
        """Exchange a code and store what comes, in a flight's own thread; raises as `finish` does."""
        with exit_hold:
            try:
                sign = self._deps.signer_for(server)
                proof_key = new_proof_key() if login.request.uses_dpop else None
                prover, now = self._deps.prover_for(proof_key), self._deps.clock()
                asking = exchange_code(response, login.request, now, sign=sign, prover=prover)
                tokens = await self._deps.run_exchange(asking, server)
            except TokenError as refused:
                if response.is_bare and refused.error == "invalid_grant":
                    self._deps.store.logins.change(
                        login.id, lambda it: replace(apply_event(it, "release"), expires_at=login.expires_at)
                    )
                    unknown = PasteRefused(f"{login.authorization_host} does not know that code.")
                    raise self._count_refused_paste(login.id, unknown, origin) from None
                self._fail_exchange(login, refused)
                raise
            except McpAuthError as trouble:
                self._fail_exchange(login, trouble)
                raise
            return await self.save_granted_tokens(login, tokens, proof_key)

    def _parse_and_claim(
        self, login_id: str, text: Secret, origin: Origin
    ) -> tuple[Login, AuthorizationResponse]:
        """Read the text for this login and take the login for ourselves; exactly one caller can."""
        login = self.get(login_id)
        if login.status != "waiting":
            raise login_state_error(login)
        if not can_complete(login, origin):
            raise PasteRefused(
                "This login was begun somewhere else.",
                "Paste where the login was begun, as whoever began it.",
            )
        if login.poll_state is not None:
            raise PasteRefused(
                "This login waits for a code that is entered on another device, and for no paste.",
                "Enter the code there, or change this login over to pasting first.",
            )
        try:
            accepts_bare = has_confirmed_pkce(login) and self._is_only_waiting_login(login)
            response = read_authorization_response(
                text.reveal(), login.request, accept_bare_code=accepts_bare
            )
        except PasteRefused as refused:
            raise self._count_refused_paste(login_id, refused, origin) from None
        except LoginError as denied:
            ended = self._fail_login(login_id, denied, expected_status="waiting")
            raise (denied if ended.status == "failed" else login_state_error(ended)) from None
        self.claim(login)
        return login, response

    def _count_refused_paste(self, login_id: str, error: PasteRefused, origin: Origin) -> LoginError:
        """Count a paste that was refused; return that refusal, or why the login takes no more."""
        store = self._deps.store.logins
        counted = store.change(login_id, lambda it: replace(it, paste_attempts=it.paste_attempts + 1))
        if counted.paste_attempts >= MAX_PASTE_ATTEMPTS and origin.platform != "terminal":
            counted = self._fail_login(
                login_id, LoginError("Too many wrong answers were pasted."), expected_status="waiting"
            )
        return error if counted.status == "waiting" else login_state_error(counted)

    def _is_only_waiting_login(self, login: Login) -> bool:
        """True where a code alone can mean no other login: not of this owner, not of this sender."""
        now = self._deps.clock()
        waiting = [
            each
            for each in self._deps.store.logins.list_all()
            if each.status == "waiting"
            and not is_expired(each, now)
            and (each.key.owner == login.key.owner or each.origin == login.origin)
        ]
        return len(waiting) == 1

    async def wait_for_login(self, login_id: str) -> Login:
        """Wait until a login is over, however and wherever that happens, and return it."""
        while True:
            login = await run_file_work(self.get, login_id)
            if login.is_over:
                return login
            if login.poll_state is not None and login.status == "waiting":
                await self._device_logins.wait_for_device(login)
            else:
                await asyncio.sleep(STORE_CHECK_SECONDS)

    async def cancel(self, login_id: str) -> Login:
        """Cancel a login that waits; one that is over, or being exchanged, stays as it is."""
        return await self._change_login(
            login_id, lambda it: apply_event(it, "cancel") if it.status == "waiting" else it
        )

    async def save_prompt_message(self, login_id: str, message_id: str) -> Login:
        """Keep the id of the chat message that shows a login from now on, before all others; return it."""

        def apply_prompt_message(current: Login) -> Login:
            return replace(
                current,
                message_ids=(message_id, *(each for each in current.message_ids if each != message_id)),
            )

        return await self._change_login(login_id, apply_prompt_message)

    async def save_messages(self, login_id: str, message_ids: tuple[str, ...]) -> Login:
        """Keep the ids of the chat messages that show a login, and return it."""
        return await self._change_login(login_id, lambda it: replace(it, message_ids=message_ids))

    async def _change_login(self, login_id: str, apply_change: Callable[[Login], Login]) -> Login:
        return await run_file_work(self._deps.store.logins.change, login_id, apply_change)

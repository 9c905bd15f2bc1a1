"""Start, switch, complete, cancel and wait for logins (state table: `login`).

A login is stored before it is shown. So any process that gets the user's answer can complete the login, even
if the process that started it has ended. All reads and writes of the store run in worker threads. If the
caller is cancelled, a step is undone or completed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from hermes_mcp_auth_remote.errors import (
    LoginError,
    McpAuthError,
    PasteRefused,
    ProviderErrorPasted,
    StillExchanging,
    TimedOut,
    TokenError,
)
from hermes_mcp_auth_remote.exit_delay import ExitDelay
from hermes_mcp_auth_remote.login import (
    MAX_PASTE_ATTEMPTS,
    Login,
    PromptReason,
    apply_event,
    is_expired,
    is_same_prompt,
    login_state_error,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse, read_authorization_response
from hermes_mcp_auth_remote.oauth.token import exchange_code
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion, can_complete, has_confirmed_pkce
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.device_logins import DeviceLogins
from hermes_mcp_auth_remote.service.single_flight import join
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.protocol import LoginChange
from hermes_mcp_auth_remote.threads import run_file_work, run_undoable_file_work, submit_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Flow, Origin, Secret, Server

# Another process may complete a login; this process sees that only in the store.
STORE_CHECK_SECONDS = 0.3
# A login start removes the logins that expired over an hour ago, at most once in this time.
PURGE_INTERVAL_SECONDS = 60.0


class Logins:
    """Starts logins, passes the user's answers to `LoginCompletion`, and waits for their end."""

    def __init__(
        self,
        deps: Dependencies,
        completion: LoginCompletion,
        device_logins: DeviceLogins,
    ) -> None:
        self._deps = deps
        self._completion = completion
        self._device_logins = device_logins
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
        """Start a login and store it. Stored credentials stay until the login succeeds.

        `challenge` is the parsed WWW-Authenticate header of a 401 or 403, if there was one. Raises a
        ServerError, NetworkError, ConfigError or StoreError.
        """
        return await self.add_login(
            await self.prepare_login(
                server, key, origin, redirect_uri=redirect_uri, challenge=challenge, flow=flow
            )
        )

    async def prepare_login(
        self,
        server: Server,
        key: CredentialKey,
        origin: Origin,
        *,
        redirect_uri: str | None = None,
        challenge: Challenge | None = None,
        flow: Flow | None = None,
    ) -> Login:
        """Return a new login that is not stored yet; raises as `start_login` does."""
        # Imported with the first login: most processes have tokens, and a bot must start quickly.
        from hermes_mcp_auth_remote.service.start_login import start_login  # noqa: PLC0415
        from hermes_mcp_auth_remote.service.unanswered_logins import (  # noqa: PLC0415
            save_unanswered_clients,
        )

        if self._is_purge_due(self._deps.clock()):
            # `add_login` removes the records. Its caller may hold the lease that this needs.
            await save_unanswered_clients(self._deps)
        return await start_login(
            self._deps, server, key, origin, redirect_uri=redirect_uri, challenge=challenge, flow=flow
        )

    async def add_login(self, login: Login) -> Login:
        """Store a login that `prepare_login` has returned, and return it; raises StoreError."""
        return await run_undoable_file_work(self._add_login, self._cancel_unseen, login)

    def _is_purge_due(self, now: float) -> bool:
        # A purge reads all logins, so concurrent starts do not repeat it.
        return not self._purged_at <= now < self._purged_at + PURGE_INTERVAL_SECONDS

    async def switch_flow(self, login_id: str, flow: Flow, server: Server) -> Login:
        """Switch a waiting login to another flow or to a new device code, and return it.

        Prompts that were shown before are then invalid. Raises a LoginError, or what `start_login` raises;
        the login is then unchanged.
        """
        from hermes_mcp_auth_remote.service.start_login import switch_flow  # noqa: PLC0415  as in `start_login`

        login = await run_file_work(self._completion.get, login_id)
        switched = await switch_flow(self._deps, server, login, flow)

        def apply_switch(current: Login) -> Login:
            if current.status == "waiting" and not is_same_prompt(current, login):
                raise PasteRefused("This login was switched to another flow elsewhere.", "Look at it again.")
            # Another process may have stored a message id since the login was read.
            return replace(
                switched,
                status=apply_event(current, "switch").status,
                message_ids=current.message_ids,
                prompt_reason=current.prompt_reason,
            )

        return await self._replace_prompt(login_id, apply_switch)

    async def _replace_prompt(self, login_id: str, apply_change: Callable[[Login], Login]) -> Login:
        """Give a login another link or code. If the caller is cancelled, it gets its earlier one back."""
        change = self._deps.store.logins.change
        return (await run_undoable_file_work(change, self._restore_prompt, login_id, apply_change)).after

    def _restore_prompt(self, change: LoginChange) -> None:
        """Undo a change of the prompt whose caller was cancelled before it could show the new one."""

        def apply_undo(current: Login) -> Login:
            if current.status != "waiting" or not is_same_prompt(current, change.after):
                return current
            paste_attempts = max(change.before.paste_attempts, current.paste_attempts)
            return replace(change.before, message_ids=current.message_ids, paste_attempts=paste_attempts)

        self._deps.store.logins.change(change.after.id, apply_undo)

    def _add_login(self, login: Login) -> Login:
        if self._is_purge_due(login.started_at):
            self._deps.store.logins.remove_expired(login.started_at)
            self._purged_at = login.started_at
        self._deps.store.logins.add(login)
        return login

    def _cancel_unseen(self, login: Login) -> None:
        """Cancel a login that was never shown, because its caller was cancelled."""
        self._deps.store.logins.change(login.id, lambda it: apply_event(it, "cancel"))

    def _release_claim(self, claimed: tuple[Login, AuthorizationResponse]) -> None:
        """Make a claimed login wait again: its caller was cancelled before it could send the code."""
        login, _ = claimed
        self._deps.store.logins.change(login.id, partial(_release_login, login))

    async def complete_login(
        self, login_id: str, text: Secret, origin: Origin, server: Server, *, is_pasted: bool = True
    ) -> Credentials:
        """Complete a login with text that a user pasted or a browser sent; `text` is untrusted.

        `is_pasted` is False for a request to the loopback listener, which any web page may send. If the text
        is an error of the provider without a state, the login may continue with another link (`retry_login`).
        Returns the stored credentials. Raises PasteRefused if the login still waits. Raises another
        LoginError, or what the token request raises, if the login has failed. Raises StillExchanging if the
        server got the code and takes too long: the login then stays `exchanging` until a response ends it.
        If the caller is cancelled after the code was sent, the exchange goes on. If it is cancelled earlier,
        the code is not sent, and the login waits again or has failed.
        """
        try:
            login, response = await run_undoable_file_work(
                self._parse_and_claim, self._release_claim, login_id, text, origin
            )
        except ProviderErrorPasted as pasted_error:
            raise (await self._retry_login(login_id, server, pasted_error, is_pasted=is_pasted)) from None
        hold, limits = ExitDelay(), self._deps.limits
        flight = self._deps.exchange_flights.submit(
            login_id, lambda: self._exchange_code(hold, login, response, origin, server), server.url
        )
        try:
            return await join(flight, limits.caller_seconds)
        except TimeoutError:
            if flight.done():
                return flight.result()
            if hold.cancel_if_unsent():
                error = TimedOut(
                    f"{login.authorization_host} could not be reached in time.", LoginError.advice
                )
                await run_file_work(self._completion.fail_exchange, login, error)
                raise error from None
            raise StillExchanging(f"{hold.host} got the code but did not respond in time.") from None
        except McpAuthError:
            raise
        except BaseException as interruption:
            if hold.cancel_if_unsent():
                # Ctrl-C before the code was sent.
                stopped = LoginError("This login was interrupted.")
                write = submit_file_work(self._completion.fail_exchange, login, stopped)
                if isinstance(interruption, asyncio.CancelledError):
                    await asyncio.shield(asyncio.wrap_future(write))
            raise

    async def _retry_login(
        self, login_id: str, server: Server, error: ProviderErrorPasted, *, is_pasted: bool
    ) -> PasteRefused:
        """Continue a login with another request if that can help; return the error for the user."""
        if not is_pasted:
            return PasteRefused("That address has no state, so it does not show which login it belongs to.")
        from hermes_mcp_auth_remote.service.start_login import retry_login  # noqa: PLC0415  as in `start_login`

        login = await self.get(login_id)
        try:
            retried = await retry_login(self._deps, server, login, error)
        except McpAuthError as failure:
            error.advice = f"{failure} {failure.advice}"
            return error
        if retried is None:
            return error

        def apply_retry(current: Login) -> Login:
            if current.status != "waiting" or not is_same_prompt(current, login):
                raise error
            return replace(
                retried,
                message_ids=current.message_ids,
                prompt_reason=current.prompt_reason,
                paste_attempts=current.paste_attempts,
            )

        await self._replace_prompt(login_id, apply_retry)
        error.advice = (
            "This login has a new link now: open it, and paste the address that the browser ends on."
        )
        return error

    async def _exchange_code(
        self,
        exit_delay: ExitDelay,
        login: Login,
        response: AuthorizationResponse,
        origin: Origin,
        server: Server,
    ) -> Credentials:
        """Exchange a code and store the tokens, in a flight's thread; raises as `complete_login` does."""
        with exit_delay:
            try:
                sign = self._deps.signer_for(server)
                proof_key = new_proof_key() if login.request.uses_dpop else None
                prover, now = self._deps.prover_for(proof_key), self._deps.clock()
                exchange = exchange_code(response, login.request, now, sign=sign, prover=prover)
                tokens = await self._deps.run_exchange(exchange, server)
            except TokenError as refused:
                if response.is_bare and refused.error == "invalid_grant":
                    self._deps.store.logins.change(login.id, partial(_release_login, login))
                    refused_paste = PasteRefused(f"{login.authorization_host} does not know that code.")
                    raise self._count_refused_paste(login.id, refused_paste, origin) from None
                self._completion.fail_exchange(login, refused)
                raise
            except McpAuthError as error:
                self._completion.fail_exchange(login, error)
                raise
            return await self._completion.save_granted_tokens(login, tokens, proof_key)

    def _parse_and_claim(
        self, login_id: str, text: Secret, origin: Origin
    ) -> tuple[Login, AuthorizationResponse]:
        """Parse the text for this login and claim the login; exactly one caller succeeds."""
        login = self._completion.get(login_id)
        if login.status != "waiting":
            raise login_state_error(login)
        if not can_complete(login, origin):
            raise PasteRefused(
                "This login was started somewhere else.",
                "Paste it where you started the login, from the same account.",
            )
        if login.poll_state is not None:
            raise PasteRefused(
                "This login waits for a code on another device and takes no paste.",
                "Enter the code there, or switch this login to pasting first.",
            )
        try:
            accepts_bare_code = has_confirmed_pkce(login) and self._is_only_waiting_login(login)
            response = read_authorization_response(
                text.reveal(), login.request, accept_bare_code=accepts_bare_code
            )
        except PasteRefused as refused:
            raise self._count_refused_paste(login_id, refused, origin) from None
        except LoginError as denied:
            failed_login = self._completion.fail_login(login_id, denied, expected_status="waiting")
            raise (denied if failed_login.status == "failed" else login_state_error(failed_login)) from None
        self._completion.claim(login)
        return login, response

    def _count_refused_paste(self, login_id: str, error: PasteRefused, origin: Origin) -> LoginError:
        """Count a refused paste; return that refusal, or the reason why the login takes no more pastes."""
        store = self._deps.store.logins
        login = store.change(login_id, lambda it: replace(it, paste_attempts=it.paste_attempts + 1)).after
        if login.paste_attempts >= MAX_PASTE_ATTEMPTS and origin.platform != "terminal":
            login = self._completion.fail_login(
                login_id, LoginError("Too many wrong answers were pasted."), expected_status="waiting"
            )
        return error if login.status == "waiting" else login_state_error(login)

    def _is_only_waiting_login(self, login: Login) -> bool:
        """True if no other login of this owner or origin waits, so that a bare code is unambiguous."""
        waiting = [
            other
            for other in self._deps.store.logins.list_open()
            if other.status == "waiting"
            and not is_expired(other, self._deps.login_time(other))
            and (other.key.owner == login.key.owner or other.origin == login.origin)
        ]
        return len(waiting) == 1

    async def get(self, login_id: str) -> Login:
        """Return the current state of a login; raises LoginNotFound."""
        return await run_file_work(self._completion.get, login_id)

    async def wait_for_login(self, login_id: str) -> Login:
        """Wait until a login is over, in this or another process, and return it."""
        while True:
            login = await run_file_work(self._completion.get, login_id)
            if login.is_over:
                return login
            if login.poll_state is not None and login.status == "waiting":
                await self._device_logins.wait_for_device(login)
            else:
                await asyncio.sleep(STORE_CHECK_SECONDS)

    async def cancel(self, login_id: str) -> Login:
        """Cancel a waiting login and return it; a login with another status is unchanged."""
        return await self._change_login(
            login_id, lambda it: apply_event(it, "cancel") if it.status == "waiting" else it
        )

    async def save_prompt_message(
        self, login_id: str, message_id: str, reason: PromptReason | None = None
    ) -> Login:
        """Store the id of the chat message that now shows a login, before the other ids; return the login.

        Also store why the chat shows it, unless `reason` is None.
        """

        def apply_prompt_message(current: Login) -> Login:
            return replace(
                current,
                message_ids=(
                    message_id,
                    *(other_id for other_id in current.message_ids if other_id != message_id),
                ),
                prompt_reason=current.prompt_reason if reason is None else reason,
            )

        return await self._change_login(login_id, apply_prompt_message)

    async def save_messages(self, login_id: str, message_ids: tuple[str, ...]) -> Login:
        """Store the ids of the chat messages that show a login, and return the login."""
        return await self._change_login(login_id, lambda it: replace(it, message_ids=message_ids))

    async def change_extra_messages(
        self, login_id: str, *, added: Collection[str] = (), removed: Collection[str] = ()
    ) -> Login:
        """Add ids after a login's other message ids, or remove ids; return the login.

        A login without messages does not change: its first id would count as its prompt.
        """

        def apply_extra_messages(current: Login) -> Login:
            if not current.message_ids:
                return current
            kept = tuple(it for it in current.message_ids if it not in removed)
            return replace(current, message_ids=(*kept, *(it for it in added if it not in kept)))

        return await self._change_login(login_id, apply_extra_messages)

    async def _change_login(self, login_id: str, apply_change: Callable[[Login], Login]) -> Login:
        return (await run_file_work(self._deps.store.logins.change, login_id, apply_change)).after


def _release_login(claimed_from: Login, current: Login) -> Login:
    """Return a claimed login as waiting again, with the time limit from before the claim."""
    return replace(
        apply_event(current, "release"), expires_at=claimed_from.expires_at, deadline=claimed_from.deadline
    )

"""One login: a value, its events, and the table of its state transitions.

Theory of operation. A 401 or a command starts a login. The service stores the login before it shows the
login, so that any process with the same store can complete it, also after a restart. Then several events
race: a paste, a redirect to the loopback port, the end of the login's time, a cancellation by the user. The
first valid answer *claims* the login. A claim is exclusive across processes: the other events then have no
effect:

    waiting --claim--> exchanging --succeed--> done
       |                   |
       |                   |--fail--> failed
       |                   `--release--> waiting     (the server did not know a bare code)
       |--expire--> expired
       |--cancel--> cancelled
       |--switch--> waiting                          (to another flow, or to a new code)
       `--fail----> failed                           (the authorization server answered with an error)

A login uses the code flow (the authorization server redirects the user's browser back to this process) or
the device flow (the user enters a user code on another device, and this process polls until the user has
decided). In the device flow, the poll that obtains the tokens claims the login.

`apply_event` raises a LoginError with the reason for any transition that is not in the table. Stored
credentials change only in the transition from exchanging to done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

from hermes_mcp_auth_remote.errors import LoginAlreadyUsed, LoginCancelled, LoginError, LoginExpired
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import PollState
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.values import BootTime, CredentialKey, Entropy, Origin

LoginStatus = Literal["waiting", "exchanging", "done", "failed", "expired", "cancelled"]
PromptReason = Literal["command", "button", "agent", "other_process", "unknown"]
"""Why a chat shows a login: the user's command or button, a call of their agent, a command on the server."""
LoginEvent = Literal["claim", "release", "succeed", "fail", "expire", "cancel", "switch"]

TRANSITIONS: Mapping[tuple[LoginStatus, LoginEvent], LoginStatus] = {
    ("waiting", "claim"): "exchanging",
    ("waiting", "expire"): "expired",
    ("waiting", "cancel"): "cancelled",
    ("waiting", "fail"): "failed",
    ("waiting", "switch"): "waiting",
    ("exchanging", "succeed"): "done",
    ("exchanging", "fail"): "failed",
    ("exchanging", "release"): "waiting",
}

LOGIN_ID_BYTES = 16
MAX_PASTE_ATTEMPTS = 5


def new_login_id(entropy: Entropy) -> str:
    """Create an unguessable login id that does not start with "-", so that it can be an option's value."""
    login_id = entropy(LOGIN_ID_BYTES)
    return f"0{login_id[1:]}" if login_id.startswith("-") else login_id


# A login may start this much later than the current time: the clocks of computers that share a store differ.
MAX_CLOCK_ERROR_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Login:
    """One login and its state. Times are epoch seconds; `request` holds its secrets.

    `poll_state` is the state of a device login, None for the code flow. `polled_by` is the id of the only
    poller. No user has seen the `request` of a device login, so no paste can complete it.
    `added_scope` is the scope that a step-up requests beyond the granted scope. `failure` is a message and
    an advice for the user, set when the login fails. `server_message` is the server's text about the failure.
    `message_ids` are the ids of the chat messages that show the login, the prompt first; the chat edits or
    deletes these messages later. If the first id is empty, the chat shows the outcome already, and only the
    deletion of the other messages is left. `prompt_reason` says why the chat shows the login.
    `is_public_only`: a chat user named the server (`values.Server`).
    """

    id: str
    key: CredentialKey
    server_url: str
    request: AuthorizationRequest
    authorization_server: AuthorizationServer
    origin: Origin
    started_at: float
    expires_at: float
    status: LoginStatus = "waiting"
    added_scope: frozenset[str] = frozenset()
    paste_attempts: int = 0
    failure: tuple[str, str] | None = None
    # The `.code` of the error that ended the login, for programs.
    failure_code: str | None = None
    server_message: str = ""
    poll_state: PollState | None = None
    polled_by: str | None = None
    message_ids: tuple[str, ...] = ()
    prompt_reason: PromptReason = "unknown"
    is_public_only: bool = False
    # `expires_at` by the boot clock, which cannot be set; None if the system has no such clock.
    deadline: BootTime | None = None
    # True if an earlier login registered the client. The server may have forgotten it since (quirk 49).
    is_client_reused: bool = False
    # The errors of the provider after which this login continued with another request, each at most once.
    retried_errors: frozenset[str] = frozenset()

    @property
    def device_authorization(self) -> DeviceAuthorization | None:
        """The user code and address of a device login; None for the code flow."""
        return None if self.poll_state is None else self.poll_state.parameters.authorization

    @property
    def is_over(self) -> bool:
        """True if no event can change this login any more."""
        return self.status in {"done", "failed", "expired", "cancelled"}

    @property
    def authorization_url(self) -> str:
        """The URL that the user opens. Show it to that user only."""
        return self.request.url

    @property
    def authorization_host(self) -> str:
        """The host of the login page; the user compares it with the browser's address bar."""
        device = self.device_authorization
        return host_of(self.request.authorization_endpoint if device is None else device.verification_uri)


@dataclass(frozen=True, slots=True)
class Connection:
    """The status of one connection: server, account, scope, and times in epoch seconds."""

    key: CredentialKey
    server_url: str
    issuer: str
    account: str | None
    scope: frozenset[str] | None
    expires_at: float | None
    can_refresh: bool
    # Scope that the login requested and the authorization server did not grant.
    missing_scope: frozenset[str] = field(default_factory=frozenset[str])
    # Why the user must log in again; None if the session is not over.
    login_needed: str | None = None
    # None if no refresh has replaced the tokens of the login.
    refreshed_at: float | None = None
    # When the refresh token expires; None if the server did not say.
    refresh_expires_at: float | None = None
    # When the server issued this access token.
    obtained_at: float | None = None
    # The failure of the last refresh; None if it succeeded or no refresh was due.
    refresh_failure: RefreshFailure | None = None
    # Set while the server refuses tokens that were just refreshed.
    token_refusal: TokenRefusal | None = None
    # The scope that the server demanded since the login. None: it made no demand. Empty: it named no scope.
    needed_scope: frozenset[str] | None = None
    # True if the session cannot be refreshed because the operator's scope leaves out `offline_access`.
    lacks_offline_access: bool = False

    def can_refresh_at(self, now: float) -> bool:
        """True if this process can refresh the access token at `now` without the user."""
        expires_at = self.refresh_expires_at
        return self.can_refresh and (expires_at is None or expires_at > now)


class Prompter(Protocol):
    """Shows a login to the user, on a terminal, in a chat or on a page."""

    async def show(self, login: Login) -> None:
        """Show the login to the user. Pass the user's answer to `AuthService.complete_login`."""
        ...

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:
        """Show how the login ended: the connection, or `login.status` and `login.failure`."""
        ...


@runtime_checkable
class JoiningPrompter(Prompter, Protocol):
    """A prompter that also acts while a call waits for a login that another process may have shown."""

    async def join(self, login: Login) -> None:
        """Act for such a call. Cancelled when the call waits no longer."""
        ...


def apply_event(login: Login, event: LoginEvent) -> Login:
    """Return the login after an event.

    Raises LoginExpired, LoginCancelled, LoginAlreadyUsed, or LoginError if the login failed.
    """
    new_status = TRANSITIONS.get((login.status, event))
    if new_status is None:
        raise login_state_error(login)
    return replace(login, status=new_status)


def login_state_error(login: Login) -> LoginError:
    """Return the error that says why a login that is over, or claimed, accepts no event."""
    if login.status == "expired":
        return LoginExpired("This login was not finished in time.")
    if login.status == "cancelled":
        return LoginCancelled("This login was cancelled.")
    if login.status == "failed":
        message, advice = login.failure or ("This login failed.", LoginError.advice)
        return LoginError(message, advice, server_message=login.server_message)
    return LoginAlreadyUsed("This login was used already.")


def matches_origin(login: Login, origin: Origin) -> bool:
    """True if `origin` is the chat and the user that the login was started for.

    A login for a user on another platform (`--via`) names no chat and no bot: it matches any of them.
    """
    expected = login.origin
    return origin == replace(
        expected, chat_id=expected.chat_id or origin.chat_id, bot_id=expected.bot_id or origin.bot_id
    )


def is_same_prompt(login: Login, other_login: Login) -> bool:
    """True if one response completes both logins: they have the same state and the same device code."""
    device, other_device = login.device_authorization, other_login.device_authorization
    if (device and device.device_code) != (other_device and other_device.device_code):
        return False
    return login.request.state == other_login.request.state


def login_time(login: Login, now: float, boot_time: BootTime | None) -> float:
    """Return the current time by the clock that set `login.expires_at`, in epoch seconds.

    `now` is the time of the wall clock, which may have been set since. It is used only after a reboot, or if
    the system has no boot clock.
    """
    deadline = login.deadline
    if deadline is None or boot_time is None or deadline.boot_id != boot_time.boot_id:
        return now
    return login.expires_at - (deadline.seconds - boot_time.seconds)


def is_expired(login: Login, now: float) -> bool:
    """True if the login still waits and its time is over. `now` is the `login_time`.

    If the stored start of a code login lies in the future, the clock was set back. The age of the login is
    then unknown, so it is over too. The authorization server itself limits a device login.
    """
    is_from_future = login.poll_state is None and login.started_at > now + MAX_CLOCK_ERROR_SECONDS
    return login.status == "waiting" and (now >= login.expires_at or is_from_future)

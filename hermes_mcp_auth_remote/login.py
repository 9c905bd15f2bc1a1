"""One login: a value, the events that happen to it, and the table of what follows.

Theory of operation. A login is begun by whoever met a 401 or typed a command. It is stored before it is
shown, so that any process with the same store can finish it, also after a restart. Then several things
race: a paste, a redirect on the loopback port, the clock, the person who cancels. The first that counts
*claims* the login; a claim is exclusive across processes, and from then on nothing else can use it:

    waiting --claim--> exchanging --succeed--> done
       |                   |
       |                   |--fail--> failed
       |                   `--release--> waiting     (a bare code that the server did not know)
       |--expire--> expired
       |--cancel--> cancelled
       |--switch--> waiting                          (by another flow, or with a new code)
       `--fail----> failed                           (the provider answered with an error)

A login goes by a code (somebody is redirected, and the redirect comes back to us) or by a device (somebody
enters a user code elsewhere, and we ask until that is done). A device login is claimed by the tokens.

What is not in the table does not happen: `follow` raises the LoginError that says why. Stored credentials
change at one place only, on the way from exchanging to done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from hermes_mcp_auth_remote.errors import LoginAlreadyUsed, LoginCancelled, LoginError, LoginExpired
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import PollState
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.values import CredentialKey, Entropy, Origin

LoginStatus = Literal["waiting", "exchanging", "done", "failed", "expired", "cancelled"]
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
    """Make the unguessable id of a login, which stands behind an option as it is: no hyphen comes first."""
    login_id = entropy(LOGIN_ID_BYTES)
    return f"0{login_id[1:]}" if login_id.startswith("-") else login_id


# Ahead of an end that only a person can put off: over a weekend, or within a piece of work.
SESSION_WARNING_SECONDS = 3 * 86_400
TOKEN_WARNING_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Login:
    """One pending authorization. Times are epoch seconds; `request` holds what we keep secret.

    `device` is what a device login waits for, None for a login by a code; `polled_by` is the one poller that
    asks for it. Where there is a device, `request` has been shown to nobody, and no paste can answer it.
    `added_scope` is what a step-up asks for beyond what was granted before; `failure` is a sentence and an
    advice for people, set once the login has failed, `failure_words` what the server said about that.
    `messages` are the ids of the chat messages that show
    it, the prompt first, for whoever brings them up to date or tidies them away.
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
    # Tells programs which leaf of the error tree it was.
    failure_code: str | None = None
    server_message: str = ""
    poll_state: PollState | None = None
    polled_by: str | None = None
    message_ids: tuple[str, ...] = ()

    @property
    def device_authorization(self) -> DeviceAuthorization | None:
        """What the person is shown of a device login: user code and address; None for a login by a code."""
        return None if self.poll_state is None else self.poll_state.parameters.authorization

    @property
    def is_over(self) -> bool:
        """True where nothing can happen to this login any more."""
        return self.status in {"done", "failed", "expired", "cancelled"}

    @property
    def authorization_url(self) -> str:
        """The URL that the person opens; for that person only."""
        return self.request.url

    @property
    def authorization_host(self) -> str:
        """The host that the person will log in at, for comparing with the browser's address bar."""
        code = self.device_authorization
        return host_of(self.request.authorization_endpoint if code is None else code.verification_uri)


@dataclass(frozen=True, slots=True)
class Connection:
    """What a person reads once connected: who, where, with which scope, until when (epoch seconds)."""

    key: CredentialKey
    server_url: str
    issuer: str
    account: str | None
    scope: frozenset[str] | None
    expires_at: float | None
    can_refresh: bool
    # Asked for, but not granted.
    missing_scope: frozenset[str] = field(default_factory=frozenset[str])
    # Why the session is over, where it is.
    login_needed: str | None = None
    # None where the tokens are still those of the login.
    refreshed_at: float | None = None
    # Where the server has said when the session ends, refreshed or not.
    refresh_expires_at: float | None = None
    # When this access token was.
    obtained_at: float | None = None
    # What came of the last refresh, None if it succeeded or none was due.
    refresh_failure: RefreshFailure | None = None

    def can_refresh_at(self, now: float) -> bool:
        """True where the session goes on by itself once the access token has ended."""
        ends = self.refresh_expires_at
        return self.can_refresh and (ends is None or ends > now)

    def upcoming_expiry(self, now: float) -> float | None:
        """Return the end that only a person can put off, where it is near or past; None where it is not.

        All times are in epoch seconds. Whether the session is over already, `login_needed` says.
        """
        ends, ahead = self.expires_at, TOKEN_WARNING_SECONDS
        if self.can_refresh_at(now):
            ends, ahead = self.refresh_expires_at, SESSION_WARNING_SECONDS
        return ends if ends is not None and ends - now < ahead else None


class Prompter(Protocol):
    """Whoever can show a login to a person: a terminal, a chat, a page."""

    async def show(self, login: Login) -> None:
        """Put the login before the person. What comes back goes to `AuthService.finish`."""
        ...

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:
        """Say how it ended: connected, or `login.status` and `login.failure`."""
        ...


def apply_event(login: Login, event: LoginEvent) -> Login:
    """Return the login after an event; raises LoginExpired, LoginCancelled or LoginAlreadyUsed."""
    after = TRANSITIONS.get((login.status, event))
    if after is None:
        raise login_state_error(login)
    return replace(login, status=after)


def login_state_error(login: Login) -> LoginError:
    """Say why a login that is over, or claimed, takes no more."""
    if login.status == "expired":
        return LoginExpired("This login was not finished in time.")
    if login.status == "cancelled":
        return LoginCancelled("This login was cancelled.")
    if login.status == "failed":
        message, advice = login.failure or ("This login failed.", LoginError.advice)
        return LoginError(message, advice, server_message=login.server_message)
    return LoginAlreadyUsed("This login was used already.")


def matches_origin(login: Login, origin: Origin) -> bool:
    """True where `here` is the place, and the person, that a login was begun for.

    Begun for a user elsewhere, it names no chat and no bot: wherever that user is asked.
    """
    begun = login.origin
    return origin == replace(
        begun, chat_id=begun.chat_id or origin.chat_id, bot_id=begun.bot_id or origin.bot_id
    )


def is_same_prompt(login: Login, other_login: Login) -> bool:
    """True where one answer would answer both: the same state is waited for, the same code is polled."""
    code, other_code = login.device_authorization, other_login.device_authorization
    if (code and code.device_code) != (other_code and other_code.device_code):
        return False
    return login.request.state == other_login.request.state


def is_expired(login: Login, now: float) -> bool:
    """True where a waiting login's time is over. `now` is in epoch seconds."""
    return login.status == "waiting" and now >= login.expires_at

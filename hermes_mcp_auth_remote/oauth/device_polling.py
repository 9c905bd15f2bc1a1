"""Asking until the person has decided: a value and what follows from each answer. RFC 8628 §3.4, §3.5.

A poll outlives the process that began it: a Pending can be written down and gone on with elsewhere. Whoever
has it sends `poll_request` at `next_at`, never earlier, and hands what came to `next_poll`:

    Pending --authorization_pending--> Pending     after the interval
            --slow_down--------------> Pending     5 seconds more, for good
            --no answer, 5xx---------> Pending     twice the wait each time, until there is an answer
            --tokens-----------------> Tokens
            --access_denied, expired_token, the clock, anything else--> Failed
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    HostNotChecked,
    LoginExpired,
    MalformedResponse,
    McpAuthError,
    NetworkError,
    ServerError,
    TimedOut,
    Unreachable,
)
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT, Client, Signer, authenticate_client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens, read_token_response
from hermes_mcp_auth_remote.oauth.token_errors import TEMPORARY_ERRORS, canonical_error, error_code
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    Request,
    Response,
    parse_seconds,
    post_form,
    read_json_or_form,
)
from hermes_mcp_auth_remote.values import Secret

POLL_STEP = "device poll"
# RFC 8628 section 3.5: "the interval MUST be increased by 5 seconds for this and all subsequent requests".
SLOW_DOWN_SECONDS = 5.0
# At most eight intervals: a network that comes back must not cost the person a minute.
MAX_DOUBLINGS = 3
# Polls in a row, at least a minute at the usual five seconds.
MAX_UNCHECKED_FAILURES = 3


@dataclass(frozen=True, slots=True)
class DevicePollParameters:
    """A device authorization as asked for and answered, with all that polling needs; it does not change.

    `expires_at` is in epoch seconds.
    """

    authorization: DeviceAuthorization
    client: Client
    issuer: str
    token_endpoint: str
    expires_at: float
    resource: str | None = None
    scope: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class PollState:
    """A device login between two polls. `next_at` is in epoch seconds, `failures` counts those in a row."""

    parameters: DevicePollParameters
    next_at: float
    interval_seconds: float
    failures: int = 0

    @property
    def next_action_at(self) -> float:
        """When there is something to do: the next poll, or the end, whichever comes first."""
        return min(self.next_at, self.parameters.expires_at)


@dataclass(frozen=True, slots=True)
class PollFailure:
    """The end of a device login without tokens."""

    error: McpAuthError


def start_polling(
    authorization_server: AuthorizationServer,
    client: Client,
    authorization: DeviceAuthorization,
    now: float,
    *,
    scope: frozenset[str] | None = None,
    resource: str | None = None,
) -> PollState:
    """Return the first Pending. `now`, in epoch seconds, is when the device authorization was asked for."""
    request = DevicePollParameters(
        authorization,
        client,
        authorization_server.issuer,
        authorization_server.token_endpoint,
        now + authorization.lifetime_seconds,
        resource,
        scope,
    )
    return PollState(request, now + authorization.interval_seconds, authorization.interval_seconds)


def poll_request(poll_state: PollState, *, sign: Signer | None = None) -> Request:
    """Build one device access token request (RFC 8628 section 3.4)."""
    asked = poll_state.parameters
    form: dict[str, str | Secret] = {
        "grant_type": DEVICE_GRANT,
        "device_code": asked.authorization.device_code,
    }
    if asked.resource is not None:
        form["resource"] = asked.resource
    fields, headers = authenticate_client(asked.client, asked.issuer, form, sign=sign)
    # The poll that brings the tokens looks like every other one, and spends the device code.
    return post_form(asked.token_endpoint, POLL_STEP, fields, headers, is_token_request=True)


def advance_poll(
    poll_state: PollState, outcome: Response | NetworkError | None, now: float, *, has_proof: bool = False
) -> PollState | Tokens | PollFailure:
    """Say what follows from a poll's outcome, None where only time went by. `now` is in epoch seconds.

    With `proven` the poll carried a proof, and the tokens may be bound to its key (RFC 9449 section 5).
    An outcome counts once: what comes out is the only thing to go on with. Failed holds AuthorizationDenied,
    LoginExpired, TokenRefused, UnreadableAnswer, or a NetworkError that waiting will not mend.
    """
    if outcome is None:
        return _fail_if_expired(poll_state, now)
    if isinstance(outcome, NetworkError):
        # Reset, unresolved, in time: these pass. A redirect or an address that we refuse does not. Behind a
        # proxy, a name that is not resolved is refused; that passes a few times.
        passing = isinstance(outcome, Unreachable | TimedOut) or type(outcome) is NetworkError
        if isinstance(outcome, HostNotChecked):
            passing = poll_state.failures < MAX_UNCHECKED_FAILURES
        return _back_off(poll_state, None, now) if passing else PollFailure(outcome)
    document = _read_document(outcome)
    waiting = _apply_wait_response(poll_state, document)
    if waiting is not None:
        return _fail_if_expired(replace(waiting, next_at=now + waiting.interval_seconds, failures=0), now)
    code = error_code(document)
    if outcome.status >= 500 or outcome.status in {408, 429} or code in TEMPORARY_ERRORS:
        return _back_off(poll_state, outcome, now)
    return _finish_poll(poll_state, outcome, canonical_error(code), now, has_proof=has_proof)


def _apply_wait_response(poll_state: PollState, document: Document) -> PollState | None:
    # Whatever the status: 400 by the standard, Google says 428 and 403, GitHub 200.
    match canonical_error(error_code(document)):
        case "authorization_pending":
            return poll_state
        case "slow_down":
            # GitHub also says what the interval is now.
            said = parse_seconds(document.get("interval")) or 0.0
            return replace(
                poll_state, interval_seconds=max(poll_state.interval_seconds + SLOW_DOWN_SECONDS, said)
            )
        case "invalid_client" if poll_state.parameters.client.auth_method == "client_secret_basic":
            # Once more with post (quirk 17), and no more with Basic then.
            client = replace(poll_state.parameters.client, auth_method="client_secret_post")
            return replace(poll_state, parameters=replace(poll_state.parameters, client=client))
        case _:
            return None


def _read_document(response: Response) -> Document:
    try:
        return read_json_or_form(response, POLL_STEP)
    except MalformedResponse:
        return {}


def _finish_poll(
    poll_state: PollState, response: Response, error: str, now: float, *, has_proof: bool
) -> Tokens | PollFailure:
    asked = poll_state.parameters
    if error == "access_denied":
        host = host_of(asked.issuer)
        return PollFailure(AuthorizationDenied(f"Access was denied at {host}.", "access_denied"))
    # Keycloak has forgotten the code by the time that it expires.
    if error == "expired_token" or (error == "invalid_grant" and now >= asked.expires_at):
        return PollFailure(_expiry_error())
    secrets = (asked.authorization.device_code, asked.client.client_secret)
    known = tuple(secret for secret in secrets if secret is not None)
    try:
        host = host_of(asked.token_endpoint)
        tokens = read_token_response(response, now, host, POLL_STEP, known, has_proof=has_proof)
    except ServerError as trouble:
        return PollFailure(trouble)
    # RFC 6749 section 5.1: scope is "OPTIONAL, if identical to the scope requested by the client".
    return tokens if tokens.scope is not None else replace(tokens, scope=asked.scope)


def _back_off(poll_state: PollState, response: Response | None, now: float) -> PollState | PollFailure:
    # RFC 8628 section 3.5: on a timeout "clients MUST unilaterally reduce their polling frequency".
    failures = poll_state.failures + 1
    wait = poll_state.interval_seconds * 2.0 ** min(failures, MAX_DOUBLINGS)
    asked_to = parse_seconds(response.header("retry-after")) if response else None
    waiting = replace(poll_state, next_at=now + max(wait, asked_to or 0.0), failures=failures)
    return _fail_if_expired(waiting, now)


def _fail_if_expired(poll_state: PollState, now: float) -> PollState | PollFailure:
    return PollFailure(_expiry_error()) if now >= poll_state.parameters.expires_at else poll_state


def _expiry_error() -> LoginExpired:
    return LoginExpired("The code was not entered in time.", "Begin a new login; it comes with a new code.")

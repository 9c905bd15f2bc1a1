"""Poll the token endpoint until the user has decided. RFC 8628 §3.4, §3.5.

A PollState is a plain value: another process can load it from the store and continue. The caller sends
`poll_request` at `next_at`, not earlier, and passes the response to `advance_poll`:

    PollState --authorization_pending--> PollState     after the interval
              --slow_down--------------> PollState     the interval grows by 5 seconds, permanently
              --no response, 5xx-------> PollState     the wait doubles each time, until a response arrives
              --tokens-----------------> Tokens
              --access_denied, expired_token, expiry of the code, any other response--> PollFailure
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
from hermes_mcp_auth_remote.oauth.client import (
    DEVICE_GRANT,
    Client,
    Signer,
    alternative_auth_method,
    authenticate_client,
    with_auth_method,
)
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
# The wait grows to at most eight intervals, so that the user waits only briefly after the network returns.
MAX_DOUBLINGS = 3
# After this many consecutive failures, HostNotChecked ends the login. With the backoff, they take at least a
# minute at the usual interval of five seconds.
MAX_UNCHECKED_FAILURES = 3


@dataclass(frozen=True, slots=True)
class DevicePollParameters:
    """A device authorization and the constant values that polling needs.

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
    """A device login between two polls.

    `next_at` is in epoch seconds. `failures` counts consecutive failed polls.
    """

    parameters: DevicePollParameters
    next_at: float
    interval_seconds: float
    failures: int = 0

    @property
    def next_action_at(self) -> float:
        """The time of the next poll or of expiry, whichever is first, in epoch seconds."""
        return min(self.next_at, self.parameters.expires_at)


@dataclass(frozen=True, slots=True)
class PollFailure:
    """A device login that ended without tokens."""

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
    """Return the first PollState. `now` (epoch seconds) is the time of the device authorization request."""
    parameters = DevicePollParameters(
        authorization,
        client,
        authorization_server.issuer,
        authorization_server.token_endpoint,
        now + authorization.lifetime_seconds,
        resource,
        scope,
    )
    return PollState(parameters, now + authorization.interval_seconds, authorization.interval_seconds)


def poll_request(poll_state: PollState, *, sign: Signer | None = None) -> Request:
    """Build one device access token request (RFC 8628 section 3.4)."""
    parameters = poll_state.parameters
    form: dict[str, str | Secret] = {
        "grant_type": DEVICE_GRANT,
        "device_code": parameters.authorization.device_code,
    }
    if parameters.resource is not None:
        form["resource"] = parameters.resource
    fields, headers = authenticate_client(parameters.client, parameters.issuer, form, sign=sign)
    # Any poll may be the one whose response has the tokens and uses up the device code.
    return post_form(parameters.token_endpoint, POLL_STEP, fields, headers, is_token_request=True)


def advance_poll(
    poll_state: PollState, outcome: Response | NetworkError | None, now: float, *, has_proof: bool = False
) -> PollState | Tokens | PollFailure:
    """Return the next state after a poll. `now` is in epoch seconds.

    `outcome` is None if no poll was sent and only time has passed. `has_proof` is True if the poll carried a
    DPoP proof: then the tokens may be bound to its key (RFC 9449 section 5). Apply each outcome once, and
    continue only with the returned state. PollFailure holds AuthorizationDenied, LoginExpired, TokenError,
    MalformedResponse, or a NetworkError that waiting does not fix.
    """
    if outcome is None:
        return _fail_if_expired(poll_state, now)
    if isinstance(outcome, NetworkError):
        # A reset, a failed name look-up and a timeout are temporary. A refused redirect or address is not.
        # Behind a proxy, a failed name look-up raises HostNotChecked, so tolerate that a few times.
        is_temporary = isinstance(outcome, Unreachable | TimedOut) or type(outcome) is NetworkError
        if isinstance(outcome, HostNotChecked):
            is_temporary = poll_state.failures < MAX_UNCHECKED_FAILURES
        return _back_off(poll_state, None, now) if is_temporary else PollFailure(outcome)
    document = _read_document(outcome)
    next_state = _apply_wait_response(poll_state, document)
    if next_state is not None:
        return _fail_if_expired(
            replace(next_state, next_at=now + next_state.interval_seconds, failures=0), now
        )
    code = error_code(document)
    if outcome.status >= 500 or outcome.status in {408, 429} or code in TEMPORARY_ERRORS:
        return _back_off(poll_state, outcome, now)
    return _finish_poll(poll_state, outcome, canonical_error(code), now, has_proof=has_proof)


def _apply_wait_response(poll_state: PollState, document: Document) -> PollState | None:
    # Ignore the status: the standard says 400, Google sends 428 and 403, GitHub 200.
    match canonical_error(error_code(document)):
        case "authorization_pending":
            return poll_state
        case "slow_down":
            # GitHub also sends the new interval.
            server_interval = parse_seconds(document.get("interval")) or 0.0
            return replace(
                poll_state,
                interval_seconds=max(poll_state.interval_seconds + SLOW_DOWN_SECONDS, server_interval),
            )
        case "invalid_client" | "unauthorized_client" if (
            method := alternative_auth_method(poll_state.parameters.client)
        ) is not None:
            # Use the other method from now on (quirks 17, 50, 51).
            client = with_auth_method(poll_state.parameters.client, method)
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
    parameters = poll_state.parameters
    if error == "access_denied":
        host = host_of(parameters.issuer)
        return PollFailure(AuthorizationDenied(f"Access was denied at {host}.", "access_denied"))
    # Keycloak deletes an expired code, and then sends invalid_grant instead of expired_token.
    if error == "expired_token" or (error == "invalid_grant" and now >= parameters.expires_at):
        return PollFailure(_expiry_error())
    optional_secrets = (parameters.authorization.device_code, parameters.client.client_secret)
    secrets = tuple(secret for secret in optional_secrets if secret is not None)
    try:
        host = host_of(parameters.token_endpoint)
        tokens = read_token_response(response, now, host, POLL_STEP, secrets, has_proof=has_proof)
    except ServerError as server_error:
        return PollFailure(server_error)
    # RFC 6749 section 5.1: scope is "OPTIONAL, if identical to the scope requested by the client".
    return tokens if tokens.scope is not None else replace(tokens, scope=parameters.scope)


def _back_off(poll_state: PollState, response: Response | None, now: float) -> PollState | PollFailure:
    # RFC 8628 section 3.5: on a timeout "clients MUST unilaterally reduce their polling frequency".
    failures = poll_state.failures + 1
    wait = poll_state.interval_seconds * 2.0 ** min(failures, MAX_DOUBLINGS)
    retry_after = parse_seconds(response.header("retry-after")) if response else None
    next_state = replace(poll_state, next_at=now + max(wait, retry_after or 0.0), failures=failures)
    return _fail_if_expired(next_state, now)


def _fail_if_expired(poll_state: PollState, now: float) -> PollState | PollFailure:
    return PollFailure(_expiry_error()) if now >= poll_state.parameters.expires_at else poll_state


def _expiry_error() -> LoginExpired:
    return LoginExpired("The code was not entered in time.", "Begin a new login to get a new code.")

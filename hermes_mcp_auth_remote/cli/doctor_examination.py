"""Examine one server: a dry run of a login, the stored login, and what is wrong. RFC 9728, RFC 8414."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass, field, replace
from functools import partial

from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.cli.doctor_report import describe_response
from hermes_mcp_auth_remote.cli.servers import current_home, resolve_server
from hermes_mcp_auth_remote.commands import login_command
from hermes_mcp_auth_remote.config import Configuration
from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    McpAuthError,
    NetworkError,
    RegistrationError,
    ServerNotFound,
)
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.discovery import PROBE_STEP, TOKEN_PROBE_STEP
from hermes_mcp_auth_remote.flows.dry_run import Findings, LoginFactory, dry_run_login
from hermes_mcp_auth_remote.flows.login_preparation import LoginNonces, prepare_login
from hermes_mcp_auth_remote.flows.machine_grants import GrantInputs, obtain_tokens
from hermes_mcp_auth_remote.http.traced_exchange import TracedRequest, run_traced_exchange
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.metadata import REFUSING_STATUSES
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.phrases import display_url, replace_unprintable
from hermes_mcp_auth_remote.service.default import service_at
from hermes_mcp_auth_remote.service.redirect_uris import redirect_uri_for
from hermes_mcp_auth_remote.service.start_login import previous_login_of
from hermes_mcp_auth_remote.signing import can_sign, check_can_sign, load_client_signer, read_token_file
from hermes_mcp_auth_remote.store.connection import connection_from_credentials
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.terminal.text import table, wrap_text
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Secret, Server

# A dry run never sends these secrets.
_PLACEHOLDER_SECRET = Secret("placeholder")


@dataclass(slots=True)
class Examination:
    """Everything that the dry run of one server has found so far.

    `server_argument` is the name or address that the user typed. Requests are printed if `show_requests`.
    """

    server_argument: str
    owner: Owner
    columns: int
    show_requests: bool = True
    server: Server | None = None
    config_warnings: tuple[str, ...] = ()
    redirect_uri: str = ""
    credentials: Credentials = field(default_factory=Credentials)
    token_refusal: TokenRefusal | None = None
    traced_requests: list[TracedRequest] = field(default_factory=list[TracedRequest])
    findings: Findings = field(default_factory=Findings)
    errors: list[McpAuthError] = field(default_factory=list[McpAuthError])
    connection: Connection | None = None
    # True if the last login ended without a response: the next login registers another client.
    was_unanswered: bool = False

    @property
    def name(self) -> str:
        """The server's name, or what the user typed if there is no such server."""
        return self.server_argument if self.server is None else self.server.name

    @property
    def is_uncertain(self) -> bool:
        """True if a login was not checked: endpoints are assumed, or a firewall refused a request."""
        discovery = self.findings.discovery
        is_assumed = discovery is not None and discovery.authorization_server.uses_default_endpoints
        outcomes = [
            traced.outcome
            for traced in self.traced_requests
            if traced.request.step not in {PROBE_STEP, TOKEN_PROBE_STEP}
        ]
        return is_assumed or any(
            isinstance(outcome, Response) and outcome.status in REFUSING_STATUSES for outcome in outcomes
        )

    def show_request(self, traced_request: TracedRequest) -> None:
        """Record a finished request and print it at once, so that the user sees which request is slow."""
        self.traced_requests.append(traced_request)
        if not self.show_requests:
            return
        response = traced_request.outcome
        status = str(response.status) if isinstance(response, Response) else "---"
        proxy_text = f" by the proxy {traced_request.proxy}" if traced_request.proxy else ""
        milliseconds = 1000 * traced_request.seconds
        url, outcome = display_url(traced_request.request.url), describe_response(traced_request)
        line = f"{url}{proxy_text} ({milliseconds:.0f} ms): {outcome}"
        print(table([(f"{traced_request.request.method:4} {status}", line)], self.columns), flush=True)


async def examine_server(examination: Examination, configuration: Configuration) -> None:
    """Perform the dry run of a login, and record what it finds. Never raises a McpAuthError."""
    try:
        examination.server = await run_file_work(
            partial(
                resolve_server,
                examination.server_argument,
                examination.owner,
                configuration,
                unknown_name_advice=ServerNotFound.advice,
            )
        )
        if examination.server.is_known:
            examination.server_argument = examination.server.name
    except McpAuthError as error:
        examination.errors.append(error)
    else:
        await _examine(examination, examination.server)


async def _examine(examination: Examination, server: Server) -> None:
    if examination.show_requests:
        title = f"{replace_unprintable(server.name)} at {display_url(server.url)}"
        print(wrap_text(title, examination.columns), end="\n\n", flush=True)
    key, service = CredentialKey(server.name, examination.owner), service_at(current_home())
    is_cimd_disabled = False
    connection, last_login = None, None
    try:
        examination.credentials = await service.read_credentials(server, key.owner)
        connection = await service.connection(server, key.owner)
        examination.token_refusal = None if connection is None else connection.token_refusal
        is_cimd_disabled = await service.is_cimd_disabled(server, key.owner)
        last_login = await service.unanswered_login(server, key.owner)
    except McpAuthError as error:
        examination.errors.append(error)
    credentials = examination.credentials
    # Derive the port from the server's name, so that every run proposes the same port.
    examination.redirect_uri = redirect_uri_for(server, credentials.client, lambda _: server.name)
    previous_login = previous_login_of(credentials, last_login, is_cimd_disabled=is_cimd_disabled)
    examination.was_unanswered = previous_login.was_unanswered
    # Check the stored client itself, not the client that would replace it.
    previous_login = replace(previous_login, was_unanswered=False)
    try:
        if server.options.dpop:
            check_can_sign("Proofs (DPoP)")
        make_login = _make_login(server, previous_login, examination.redirect_uri)
        exchange = dry_run_login(
            server,
            make_login,
            preferred_issuer=previous_login.issuer,
            authorization=_valid_authorization(credentials, server, time.time()),
        )
        examination.findings = await run_traced_exchange(exchange, server, examination.show_request)
    except McpAuthError as error:
        examination.errors.append(error)
    examination.errors += examination.findings.obstacles
    examination.errors += _session_errors(examination, server, key, connection)


def _valid_authorization(credentials: Credentials, server: Server, now: float) -> Secret | None:
    """Return the Authorization header of a stored Bearer token that has not expired, else None."""
    tokens, binding = credentials.tokens, credentials.binding
    if tokens is None or tokens.scheme != "Bearer" or (tokens.expires_at or math.inf) <= now:
        return None
    if binding is not None and binding.server_url != server.url:
        # The token belongs to another server of this name.
        return None
    return Secret(tokens.authorization_header)


def _session_errors(
    examination: Examination, server: Server, key: CredentialKey, connection: Connection | None
) -> list[McpAuthError]:
    """List what is wrong with the stored login: a forgotten client, a refused token, an ended session."""
    errors, command = list[McpAuthError](), login_command(examination.server_argument, key.owner)
    credentials, findings = examination.credentials, examination.findings
    if findings.is_client_forgotten and credentials.client is not None:
        issuer = credentials.authorization_server.issuer if credentials.authorization_server else server.url
        errors.append(
            RegistrationError(
                f"{host_of(issuer)} no longer knows the client that an earlier login registered.",
                f"Run {command}: it registers another client.",
            )
        )
    if server.options.grant != "authorization_code" or connection is None:
        return errors
    examination.connection, failure = connection, connection.refresh_failure
    state = connection_state(examination, server)
    reason: str | None = None
    if state in {"login needed", "expired"}:
        reason = connection.login_needed or "its access token has ended"
    elif findings.refuses_token:
        reason = "it refuses the stored token, which has not expired"
    elif connection.needed_scope is not None:
        reason = "it demands more access than this login has"
    if reason is not None:
        login_needed = AuthorizationRequired(server.name, reason=reason)
        login_needed.advice = f"Run {command}"
        errors.append(login_needed)
    elif state == "refresh failing" and failure is not None:
        refresh_error = NetworkError(f"The last refresh failed: {failure.message}", failure.advice)
        refresh_error.server_message = failure.server_message
        errors.append(refresh_error)
    return errors


def _make_login(server: Server, previous_login: PreviousLogin, redirect_uri: str) -> LoginFactory:
    """Return a function that prepares a login to a server.

    Raises ConfigError if a file cannot be read.
    """
    options = server.options
    sign = _signer(server)
    if options.grant != "authorization_code":
        grant_inputs = GrantInputs(sign, _read_assertion(server))
        return lambda target_server: obtain_tokens(
            target_server, grant_inputs, time.time(), previous_login=previous_login
        )

    def make_exchange(target_server: Server) -> Exchange[object]:
        return prepare_login(
            target_server,
            LoginNonces(_PLACEHOLDER_SECRET, _PLACEHOLDER_SECRET),
            redirect_uri,
            time.time(),
            previous_login=previous_login,
            sign=sign,
            can_use_dpop=can_sign(),
            flow=options.flow if options.device else "paste",
        )

    return make_exchange


def _signer(server: Server) -> Signer | None:
    path, key_id = server.options.private_key_file, server.options.private_key_id
    return None if path is None else load_client_signer(path, key_id, time.time, secrets.token_urlsafe)


def _read_assertion(server: Server) -> Secret | None:
    options = server.options
    if options.assertion_file is not None:
        return read_token_file(options.assertion_file, "assertion_file")
    if options.identity_provider is not None:
        return read_token_file(options.identity_provider.token_file, "identity_provider.token_file")
    return None


def connection_state(examination: Examination, server: Server) -> str:
    """Return the state of the stored login, as `status` names it."""
    key, credentials = CredentialKey(server.name, examination.owner), examination.credentials
    connection = examination.connection
    if connection is None and credentials.tokens is not None:
        connection = connection_from_credentials(key, server.url, credentials)
    uses_machine_grant = server.options.grant != "authorization_code"
    return ConnectionStatus(
        key, examination.server_argument, time.time(), connection, uses_machine_grant=uses_machine_grant
    ).state

"""`doctor`: a dry run of a login, with a line per request and one remedy. RFC 9728, RFC 8414."""

from __future__ import annotations

import argparse
import math
import os
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.cli.doctor_report import (
    configured_keys,
    describe_problem,
    describe_response,
    describe_support,
    notes,
    request_event,
    support_rows,
)
from hermes_mcp_auth_remote.cli.output import exit_code, print_json
from hermes_mcp_auth_remote.cli.servers import (
    current_configuration,
    current_home,
    login_command,
    resolve_server,
)
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    McpAuthError,
    NetworkError,
    RegistrationError,
)
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.discovery import PROBE_STEP, TOKEN_PROBE_STEP
from hermes_mcp_auth_remote.flows.dry_run import Findings, LoginFactory, dry_run_login
from hermes_mcp_auth_remote.flows.login_preparation import LoginNonces, prepare_login
from hermes_mcp_auth_remote.flows.machine_grants import GrantInputs, obtain_tokens
from hermes_mcp_auth_remote.http.traced_exchange import TracedRequest, proxy_address_for, run_traced_exchange
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.metadata import REFUSING_STATUSES
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.phrases import (
    SERVER_SAYS,
    describe_token_refusal,
    display_url,
    quote_server_message,
    replace_unprintable,
)
from hermes_mcp_auth_remote.service.connections import connection_from_credentials
from hermes_mcp_auth_remote.service.default import service_at
from hermes_mcp_auth_remote.service.redirect_uris import redirect_uri_for
from hermes_mcp_auth_remote.service.start_login import previous_login_of
from hermes_mcp_auth_remote.signing import can_sign, check_can_sign, load_client_signer, read_token_file
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK, table, wrap_text
from hermes_mcp_auth_remote.terminal.window import terminal_size
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server

# A dry run never sends these secrets.
_PLACEHOLDER_SECRET = Secret("placeholder")


@dataclass(slots=True)
class _Report:
    """Everything that the dry run has found so far."""

    server_argument: str
    as_json: bool
    columns: int
    server: Server | None = None
    config_warnings: tuple[str, ...] = ()
    redirect_uri: str = ""
    credentials: Credentials = field(default_factory=Credentials)
    token_refusal: TokenRefusal | None = None
    traced_requests: list[TracedRequest] = field(default_factory=list[TracedRequest])
    findings: Findings = field(default_factory=Findings)
    errors: list[McpAuthError] = field(default_factory=list[McpAuthError])
    connection: Connection | None = None
    # True if the last login ended without a response: the next one registers another client.
    was_unanswered: bool = False

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
        if self.as_json:
            return
        response = traced_request.outcome
        status = str(response.status) if isinstance(response, Response) else "---"
        proxy_text = f" by the proxy {traced_request.proxy}" if traced_request.proxy else ""
        milliseconds = 1000 * traced_request.seconds
        url, outcome = display_url(traced_request.request.url), describe_response(traced_request)
        line = f"{url}{proxy_text} ({milliseconds:.0f} ms): {outcome}"
        print(table([(f"{traced_request.request.method:4} {status}", line)], self.columns), flush=True)


def run(options: argparse.Namespace) -> int:
    """Run a login without changing anything and print what is wrong. Return the exit code."""
    if options.hermes:
        from hermes_mcp_auth_remote.cli.hermes_doctor import run_hermes_doctor

        return run_hermes_doctor(as_json=options.json)
    if options.server is None:
        options.refuse("name a server, or use --hermes")
    server_name = str(options.server)
    report = _Report(server_name, options.json, terminal_size(sys.stdout)[0])
    try:
        configuration = current_configuration()
        report.config_warnings = (
            *configuration.general_warnings(),
            *configuration.warnings(server_name),
        )
        report.server = resolve_server(options.server, options.owner, configuration)
    except McpAuthError as error:
        report.errors.append(error)
    else:
        _examine(report, report.server, CredentialKey(report.server.name, options.owner))
    if report.as_json:
        print_json(_json_report(report, options.owner))
    else:
        print(_text_report(report, options.owner), flush=True)
    return exit_code(report.errors[0]) if report.errors else 0


def _examine(report: _Report, server: Server, key: CredentialKey) -> None:
    if not report.as_json:
        print(
            wrap_text(f"{replace_unprintable(server.name)} at {display_url(server.url)}", report.columns),
            end="\n\n",
            flush=True,
        )
    service = service_at(current_home())
    is_cimd_disabled = False
    connection, last_login = None, None
    try:
        report.credentials = service.read_credentials(server, key.owner)
        connection = service.connection(server, key.owner)
        report.token_refusal = None if connection is None else connection.token_refusal
        is_cimd_disabled = service.is_cimd_disabled(server, key.owner)
        last_login = service.unanswered_login(server, key.owner)
    except McpAuthError as error:
        report.errors.append(error)
    credentials = report.credentials
    # Derive the port from the server's name, so that every run proposes the same port.
    report.redirect_uri = redirect_uri_for(server, credentials.client, lambda _: server.name)
    previous_login = previous_login_of(credentials, last_login, is_cimd_disabled=is_cimd_disabled)
    report.was_unanswered = previous_login.was_unanswered
    # Check the stored client itself, not the client that would replace it.
    previous_login = replace(previous_login, was_unanswered=False)
    try:
        if server.options.dpop:
            check_can_sign("Proofs (DPoP)")
        make_login = _make_login(server, previous_login, report.redirect_uri)
        exchange = dry_run_login(
            server,
            make_login,
            preferred_issuer=previous_login.issuer,
            authorization=_valid_authorization(credentials, server, time.time()),
        )
        report.findings = run_until_stopped(run_traced_exchange(exchange, server, report.show_request))
    except McpAuthError as error:
        report.errors.append(error)
    report.errors += report.findings.obstacles
    report.errors += _session_errors(report, server, key, connection)


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
    report: _Report, server: Server, key: CredentialKey, connection: Connection | None
) -> list[McpAuthError]:
    """List what is wrong with the stored login: a forgotten client, a refused token, an ended session."""
    errors, command = list[McpAuthError](), login_command(report.server_argument, key.owner)
    credentials, findings = report.credentials, report.findings
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
    report.connection, failure = connection, connection.refresh_failure
    state = _connection_state(report, server, key.owner)
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


def _json_report(report: _Report, owner: str | None) -> dict[str, object]:
    server = report.server
    return {
        "server": report.server_argument if server is None else server.name,
        "url": None if server is None else display_url(server.url),
        "steps": [request_event(traced) for traced in report.traced_requests],
        "supports": {} if server is None else describe_support(report.findings, server),
        "configured": [] if server is None else configured_keys(server.options),
        "stored": _stored_parts(report.credentials),
        "network": {} if server is None else _network_facts(report, server),
        "notes": _notes(report),
        "problems": _problems(report),
        "remedy": _remedy(report, owner),
    }


def _text_report(report: _Report, owner: str | None) -> str:
    parts: list[str] = []
    server, columns = report.server, report.columns
    if server is not None:
        rows = support_rows(describe_support(report.findings, server))
        rows.append(("Configured", ", ".join(configured_keys(server.options)) or "nothing but the address"))
        rows.append(("Stored", ", ".join(_stored_parts(report.credentials)) or "nothing"))
        rows.append(("Login", _connection_state(report, server, owner)))
        network = _network_facts(report, server)
        rows.append(("Proxy", str(network["proxy"] or "none")))
        rows.append(("Trusts", str(network["trusts"])))
        rows.append(("Reaches", str(network["reaches"])))
        parts.append(f"\n{table(rows, columns)}" if report.traced_requests else table(rows, columns))
    parts += [f"\n{wrap_text(f'Note: {replace_unprintable(note)}', columns)}" for note in _notes(report)]
    parts.append("")
    for error, problem in zip(report.errors, _problems(report), strict=True):
        parts.append(wrap_text(f"{CROSS_MARK} {replace_unprintable(problem['message'])}", columns))
        if error.server_message:
            parts.append(
                wrap_text(f"{SERVER_SAYS}: {quote_server_message(error.server_message)}", columns, 2)
            )
    remedy = wrap_text(replace_unprintable(_remedy(report, owner)), columns - 2 if columns else 0)
    mark = "  " if report.errors or report.is_uncertain else f"{CHECK_MARK} "
    parts.append(f"{mark}{remedy}".replace("\n", "\n  "))
    return "\n".join(parts)


def _problems(report: _Report) -> list[dict[str, str]]:
    return [describe_problem(error) for error in report.errors]


def _notes(report: _Report) -> list[str]:
    issuer = report.credentials.binding.issuer if report.credentials.binding else None
    if report.server is None:
        return list(report.config_warnings)
    refusals = [] if report.token_refusal is None else [describe_token_refusal(report.token_refusal)]
    texts = [*report.config_warnings, *refusals, *notes(report.findings, report.server, issuer)]
    if report.was_unanswered:
        texts.append(
            "The last login ended without a response from the provider. The next registers another client."
        )
    return texts


def _remedy(report: _Report, owner: str | None) -> str:
    """Return one remedy, for the first problem that a login would meet."""
    problems = _problems(report)
    if problems:
        return problems[0]["advice"]
    if report.server is not None and report.server.options.grant != "authorization_code":
        return f"Nothing is wrong. No login is needed: run {_token_command(report, owner)}"
    command = login_command(report.server_argument, owner)
    is_connected = report.server is not None and (
        _connection_state(report, report.server, owner) == "connected"
    )
    if report.is_uncertain:
        state = "You are connected. " if is_connected else ""
        return f"{state}Whether a login works cannot be told without trying: run {command}"
    return "Nothing is wrong, and you are connected." if is_connected else f"Nothing is wrong: run {command}"


def _token_command(report: _Report, owner: str | None) -> str:
    return login_command(report.server_argument, owner).replace(" login ", " token ", 1)


def _connection_state(report: _Report, server: Server, owner: str | None) -> str:
    key, credentials = CredentialKey(server.name, owner), report.credentials
    connection = report.connection
    if connection is None and credentials.tokens is not None:
        connection = connection_from_credentials(key, server.url, credentials)
    uses_machine_grant = server.options.grant != "authorization_code"
    return ConnectionStatus(
        key, report.server_argument, connection, uses_machine_grant=uses_machine_grant
    ).state(time.time())


def _stored_parts(credentials: Credentials) -> list[str]:
    """List the names of the stored parts, never their values."""
    parts: Mapping[str, object] = {
        "tokens": credentials.tokens,
        "refresh token": credentials.tokens and credentials.tokens.refresh_token,
        "client": credentials.client,
        "metadata": credentials.authorization_server,
        "binding": credentials.binding,
        "proof key": credentials.proof_key,
    }
    return [name for name, part in parts.items() if part]


def _network_facts(report: _Report, server: Server) -> dict[str, object]:
    options = server.options
    configured_authorities = [
        f"{name} ({os.environ[name]})" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)
    ]
    authorities = ", ".join(configured_authorities) or "the authorities of this system and of certifi"
    trusts = authorities if options.ca_file is None else f"{options.ca_file}, elsewhere also {authorities}"
    return {
        "proxy": next(
            (traced.proxy for traced in report.traced_requests if traced.proxy),
            proxy_address_for(server.url, os.environ),
        ),
        "trusts": trusts
        if options.verify_tls
        else f"any certificate of {server.name}, elsewhere {authorities}",
        "reaches": ", ".join(
            [
                "public addresses, and the server's own network",
                *options.allow_addresses,
                *(f"{host} (unchecked behind a proxy)" for host in options.allow_hosts),
            ]
        ),
    }

"""`doctor`: a login in slow motion, up to where it would begin; each answer in a line, and one remedy."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

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
from hermes_mcp_auth_remote.cli.servers import current_home, login_command, resolve_server
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.dry_run import Findings, LoginFactory, dry_run_login
from hermes_mcp_auth_remote.flows.login_preparation import LoginNonces, prepare_login
from hermes_mcp_auth_remote.flows.machine_grants import GrantInputs, obtain_tokens
from hermes_mcp_auth_remote.http.traced import TracedRequest, proxy_address_for, run_traced_exchange
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.phrases import SERVER_SAYS, display_url, quote_server_message, replace_unprintable
from hermes_mcp_auth_remote.service.connections import connection_from_credentials
from hermes_mcp_auth_remote.service.start_login import redirect_uri_for
from hermes_mcp_auth_remote.signing import can_sign, check_can_sign, load_client_signer, read_token_file
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.terminal.screen import terminal_size
from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK, table, wrap_text
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server

# They go nowhere: a rehearsal sends nothing that would carry them.
_PLACEHOLDER_SECRET = Secret("rehearsal")


@dataclass(slots=True)
class _Report:
    """All that is found, as it is found."""

    server_argument: str
    as_json: bool
    columns: int
    server: Server | None = None
    redirect_uri: str = ""
    credentials: Credentials = field(default_factory=Credentials)
    traced_requests: list[TracedRequest] = field(default_factory=list[TracedRequest])
    findings: Findings = field(default_factory=Findings)
    errors: list[McpAuthError] = field(default_factory=list[McpAuthError])

    def show_request(self, traced_request: TracedRequest) -> None:
        """Show a request as soon as it is over: a slow one explains itself by then."""
        self.traced_requests.append(traced_request)
        if self.as_json:
            return
        answer = traced_request.outcome
        status = str(answer.status) if isinstance(answer, Response) else "---"
        by = f" by the proxy {traced_request.proxy}" if traced_request.proxy else ""
        milliseconds = 1000 * traced_request.seconds
        url, outcome = display_url(traced_request.request.url), describe_response(traced_request)
        line = f"{url}{by} ({milliseconds:.0f} ms): {outcome}"
        print(table([(f"{traced_request.request.method:4} {status}", line)], self.columns), flush=True)


def run(options: argparse.Namespace) -> int:
    """Walk through a login of a server and say what is wrong with it; changes nothing anywhere."""
    report = _Report(options.server, options.json, terminal_size(sys.stdout)[0])
    try:
        report.server = resolve_server(options.server, options.owner)
    except McpAuthError as trouble:
        report.errors.append(trouble)
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
    store = FileStore(current_home())
    refused = False
    try:
        report.credentials = store.read(key)
        refused = store.is_cimd_disabled(key)
    except McpAuthError as trouble:
        report.errors.append(trouble)
    stored = report.credentials
    # The port that is proposed is the same each time that somebody asks.
    report.redirect_uri = redirect_uri_for(server, stored.client, lambda _: server.name)
    held = PreviousLogin(
        stored.client,
        stored.authorization_server.issuer if stored.authorization_server else None,
        (stored.tokens.scope if stored.tokens else None) or frozenset(),
        refused,
    )
    try:
        if server.options.dpop:
            check_can_sign("Proofs (DPoP)")
        login = _make_login(server, held, report.redirect_uri)
        walk = dry_run_login(server, login, preferred_issuer=held.issuer)
        report.findings = run_until_stopped(run_traced_exchange(walk, server, report.show_request))
    except McpAuthError as trouble:
        report.errors.append(trouble)
    report.errors += report.findings.obstacles


def _make_login(server: Server, held: PreviousLogin, redirect_uri: str) -> LoginFactory:
    """Return what a login of this server is made of; raises ConfigError for files that cannot be read."""
    options = server.options
    sign = _signer(server)
    if options.grant != "authorization_code":
        means = GrantInputs(sign, _read_assertion(server))
        return lambda who: obtain_tokens(who, means, time.time(), previous_login=held)

    def make_exchange(target_server: Server) -> Exchange[object]:
        return prepare_login(
            target_server,
            LoginNonces(_PLACEHOLDER_SECRET, _PLACEHOLDER_SECRET),
            redirect_uri,
            time.time(),
            previous_login=held,
            sign=sign,
            can_use_dpop=can_sign(),
            flow=options.flow if options.device else "paste",
        )

    return make_exchange


def _signer(server: Server) -> Signer | None:
    path, key_id = server.options.private_key_file, server.options.private_key_id
    return None if path is None else load_client_signer(path, key_id, time.time, lambda _: "rehearsal")


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
        "steps": [request_event(seen) for seen in report.traced_requests],
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
        parts += [f"\n{wrap_text(f'Note: {replace_unprintable(each)}', columns)}" for each in _notes(report)]
    parts.append("")
    for error, each in zip(report.errors, _problems(report), strict=True):
        parts.append(wrap_text(f"{CROSS_MARK} {replace_unprintable(each['message'])}", columns))
        if error.server_message:
            parts.append(
                wrap_text(f"{SERVER_SAYS}: {quote_server_message(error.server_message)}", columns, 2)
            )
    remedy = wrap_text(replace_unprintable(_remedy(report, owner)), columns - 2 if columns else 0)
    mark = "  " if report.errors else f"{CHECK_MARK} "
    parts.append(f"{mark}{remedy}".replace("\n", "\n  "))
    return "\n".join(parts)


def _problems(report: _Report) -> list[dict[str, str]]:
    server = report.server or Server(report.server_argument, "")
    return [describe_problem(each, server, report.redirect_uri) for each in report.errors]


def _notes(report: _Report) -> list[str]:
    issuer = report.credentials.binding.issuer if report.credentials.binding else None
    return [] if report.server is None else list(notes(report.findings, report.server, issuer))


def _remedy(report: _Report, owner: str | None) -> str:
    """Return the one thing to do: about what a login would meet first."""
    problems = _problems(report)
    if problems:
        return problems[0]["advice"]
    if report.server is not None and report.server.options.grant != "authorization_code":
        return f"Nothing is wrong: no login is needed, run {_token_command(report, owner)}"
    if report.server is not None and _connection_state(report, report.server, owner) == "connected":
        return "Nothing is wrong, and you are connected."
    return f"Nothing is wrong: run {login_command(report.server_argument, owner)}"


def _token_command(report: _Report, owner: str | None) -> str:
    return login_command(report.server_argument, owner).replace(" login ", " token ", 1)


def _connection_state(report: _Report, server: Server, owner: str | None) -> str:
    key, stored = CredentialKey(server.name, owner), report.credentials
    found = None if stored.tokens is None else connection_from_credentials(key, server.url, stored)
    needs_nobody = server.options.grant != "authorization_code"
    return ConnectionStatus(key, report.server_argument, found, uses_machine_grant=needs_nobody).state(
        time.time()
    )


def _stored_parts(credentials: Credentials) -> list[str]:
    """Name what is stored; never what it says."""
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
    usual = [
        f"{name} ({os.environ[name]})" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)
    ]
    authorities = ", ".join(usual) or "the authorities of this system and of certifi"
    trusts = authorities if options.ca_file is None else f"{options.ca_file}, elsewhere also {authorities}"
    return {
        "proxy": next(
            (seen.proxy for seen in report.traced_requests if seen.proxy),
            proxy_address_for(server.url, os.environ),
        ),
        "trusts": trusts if options.verify_tls else f"whatever {server.name} shows, elsewhere {authorities}",
        "reaches": ", ".join(
            [
                "public addresses, and what is beside the server",
                *options.allow_addresses,
                *(f"{host} (unchecked behind a proxy)" for host in options.allow_hosts),
            ]
        ),
    }

"""`doctor`: a login in slow motion, up to where it would begin; each answer in a line, and one remedy."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.cli.connection_status import Standing
from hermes_mcp_auth_remote.cli.doctor_report import (
    configured,
    notes,
    problem,
    step,
    support_rows,
    supports,
    what_it_was,
)
from hermes_mcp_auth_remote.cli.output import exit_code, put
from hermes_mcp_auth_remote.cli.servers import login_command, named, the_home
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.flows.client_selection import Held
from hermes_mcp_auth_remote.flows.dry_run import Findings, Login, rehearse
from hermes_mcp_auth_remote.flows.login_preparation import Chance, prepare
from hermes_mcp_auth_remote.flows.machine_grants import Means, obtain
from hermes_mcp_auth_remote.http.traced import Seen, proxy_of, run_watched
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.phrases import SERVER_SAYS, address, quoted_words, shown
from hermes_mcp_auth_remote.service.connections import connection
from hermes_mcp_auth_remote.service.start_login import redirect_uri_for
from hermes_mcp_auth_remote.signing import can_sign, check_can_sign, client_signer, read_token_file
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.terminal.screen import size
from hermes_mcp_auth_remote.terminal.text import NO, YES, filled, table
from hermes_mcp_auth_remote.values import Key, Secret, Server

# They go nowhere: a rehearsal sends nothing that would carry them.
_NOTHING = Secret("rehearsal")


@dataclass(slots=True)
class _Report:
    """All that is found, as it is found."""

    named: str
    as_json: bool
    columns: int
    server: Server | None = None
    redirect_uri: str = ""
    stored: Credentials = field(default_factory=Credentials)
    seen: list[Seen] = field(default_factory=list[Seen])
    findings: Findings = field(default_factory=Findings)
    troubles: list[McpAuthError] = field(default_factory=list[McpAuthError])

    def watch(self, seen: Seen) -> None:
        """Show a request as soon as it is over: a slow one explains itself by then."""
        self.seen.append(seen)
        if self.as_json:
            return
        answer = seen.outcome
        status = str(answer.status) if isinstance(answer, Response) else "---"
        by = f" by the proxy {seen.proxy}" if seen.proxy else ""
        line = f"{address(seen.request.url)}{by} ({1000 * seen.seconds:.0f} ms): {what_it_was(seen)}"
        print(table([(f"{seen.request.method:4} {status}", line)], self.columns), flush=True)


def run(options: argparse.Namespace) -> int:
    """Walk through a login of a server and say what is wrong with it; changes nothing anywhere."""
    report = _Report(options.server, options.json, size(sys.stdout)[0])
    try:
        report.server = named(options.server, options.owner)
    except McpAuthError as trouble:
        report.troubles.append(trouble)
    else:
        _examine(report, report.server, Key(report.server.name, options.owner))
    if report.as_json:
        put(_document(report, options.owner))
    else:
        print(_text(report, options.owner), flush=True)
    return exit_code(report.troubles[0]) if report.troubles else 0


def _examine(report: _Report, server: Server, key: Key) -> None:
    if not report.as_json:
        print(
            filled(f"{shown(server.name)} at {address(server.url)}", report.columns), end="\n\n", flush=True
        )
    store = FileStore(the_home())
    refused = False
    try:
        report.stored = store.read(key)
        refused = store.is_metadata_document_refused(key)
    except McpAuthError as trouble:
        report.troubles.append(trouble)
    stored = report.stored
    # The port that is proposed is the same each time that somebody asks.
    report.redirect_uri = redirect_uri_for(server, stored.client, lambda _: server.name)
    held = Held(
        stored.client,
        stored.authorization_server.issuer if stored.authorization_server else None,
        (stored.tokens.scope if stored.tokens else None) or frozenset(),
        refused,
    )
    try:
        if server.options.dpop:
            check_can_sign("Proofs (DPoP)")
        login = _login(server, held, report.redirect_uri)
        walk = rehearse(server, login, prefer_issuer=held.issuer)
        report.findings = run_until_stopped(run_watched(walk, server, report.watch))
    except McpAuthError as trouble:
        report.troubles.append(trouble)
    report.troubles += report.findings.obstacles


def _login(server: Server, held: Held, redirect_uri: str) -> Login:
    """Return what a login of this server is made of; raises ConfigError for files that cannot be read."""
    options = server.options
    sign = _signer(server)
    if options.grant != "authorization_code":
        means = Means(sign, _assertion(server))
        return lambda who: obtain(who, means, time.time(), held=held)

    def login(who: Server) -> Exchange[object]:
        return prepare(
            who,
            Chance(_NOTHING, _NOTHING),
            redirect_uri,
            time.time(),
            held=held,
            sign=sign,
            can_prove=can_sign(),
            flow=options.flow if options.device else "paste",
        )

    return login


def _signer(server: Server) -> Signer | None:
    path, key_id = server.options.private_key_file, server.options.private_key_id
    return None if path is None else client_signer(path, key_id, time.time, lambda _: "rehearsal")


def _assertion(server: Server) -> Secret | None:
    options = server.options
    if options.assertion_file is not None:
        return read_token_file(options.assertion_file, "assertion_file")
    if options.identity_provider is not None:
        return read_token_file(options.identity_provider.token_file, "identity_provider.token_file")
    return None


def _document(report: _Report, owner: str | None) -> dict[str, object]:
    server = report.server
    return {
        "server": report.named if server is None else server.name,
        "url": None if server is None else address(server.url),
        "steps": [step(seen) for seen in report.seen],
        "supports": {} if server is None else supports(report.findings, server),
        "configured": [] if server is None else configured(server.options),
        "stored": _stored(report.stored),
        "network": {} if server is None else _network(report, server),
        "notes": _notes(report),
        "problems": _problems(report),
        "remedy": _remedy(report, owner),
    }


def _text(report: _Report, owner: str | None) -> str:
    parts: list[str] = []
    server, columns = report.server, report.columns
    if server is not None:
        rows = support_rows(supports(report.findings, server))
        rows.append(("Configured", ", ".join(configured(server.options)) or "nothing but the address"))
        rows.append(("Stored", ", ".join(_stored(report.stored)) or "nothing"))
        rows.append(("Login", _standing(report, server, owner)))
        network = _network(report, server)
        rows.append(("Proxy", str(network["proxy"] or "none")))
        rows.append(("Trusts", str(network["trusts"])))
        rows.append(("Reaches", str(network["reaches"])))
        parts.append(f"\n{table(rows, columns)}" if report.seen else table(rows, columns))
        parts += [f"\n{filled(f'Note: {shown(each)}', columns)}" for each in _notes(report)]
    parts.append("")
    for error, each in zip(report.troubles, _problems(report), strict=True):
        parts.append(filled(f"{NO} {shown(each['message'])}", columns))
        if error.server_words:
            parts.append(filled(f"{SERVER_SAYS}: {quoted_words(error.server_words)}", columns, 2))
    remedy = filled(shown(_remedy(report, owner)), columns - 2 if columns else 0)
    mark = "  " if report.troubles else f"{YES} "
    parts.append(f"{mark}{remedy}".replace("\n", "\n  "))
    return "\n".join(parts)


def _problems(report: _Report) -> list[dict[str, str]]:
    server = report.server or Server(report.named, "")
    return [problem(each, server, report.redirect_uri) for each in report.troubles]


def _notes(report: _Report) -> list[str]:
    issuer = report.stored.binding.issuer if report.stored.binding else None
    return [] if report.server is None else list(notes(report.findings, report.server, issuer))


def _remedy(report: _Report, owner: str | None) -> str:
    """Return the one thing to do: about what a login would meet first."""
    problems = _problems(report)
    if problems:
        return problems[0]["advice"]
    if report.server is not None and report.server.options.grant != "authorization_code":
        return f"Nothing is wrong: no login is needed, run {_token_command(report, owner)}"
    if report.server is not None and _standing(report, report.server, owner) == "connected":
        return "Nothing is wrong, and you are connected."
    return f"Nothing is wrong: run {login_command(report.named, owner)}"


def _token_command(report: _Report, owner: str | None) -> str:
    return login_command(report.named, owner).replace(" login ", " token ", 1)


def _standing(report: _Report, server: Server, owner: str | None) -> str:
    key, stored = Key(server.name, owner), report.stored
    found = None if stored.tokens is None else connection(key, server.url, stored)
    needs_nobody = server.options.grant != "authorization_code"
    return Standing(key, report.named, found, needs_nobody=needs_nobody).state(time.time())


def _stored(stored: Credentials) -> list[str]:
    """Name what is stored; never what it says."""
    parts: Mapping[str, object] = {
        "tokens": stored.tokens,
        "refresh token": stored.tokens and stored.tokens.refresh_token,
        "client": stored.client,
        "metadata": stored.authorization_server,
        "binding": stored.binding,
        "proof key": stored.proof_key,
    }
    return [name for name, part in parts.items() if part]


def _network(report: _Report, server: Server) -> dict[str, object]:
    options = server.options
    usual = [
        f"{name} ({os.environ[name]})" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)
    ]
    authorities = ", ".join(usual) or "the authorities of this system and of certifi"
    trusts = authorities if options.ca_file is None else f"{options.ca_file}, elsewhere also {authorities}"
    return {
        "proxy": next((seen.proxy for seen in report.seen if seen.proxy), proxy_of(server.url, os.environ)),
        "trusts": trusts if options.verify_tls else f"whatever {server.name} shows, elsewhere {authorities}",
        "reaches": ", ".join(
            [
                "public addresses, and what is beside the server",
                *options.allow_addresses,
                *(f"{host} (unchecked behind a proxy)" for host in options.allow_hosts),
            ]
        ),
    }

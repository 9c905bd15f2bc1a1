"""`doctor`: a dry run of a login, with a line per request and one remedy; or of all logins at once."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping

from hermes_mcp_auth_remote.cli.doctor_examination import Examination, connection_state, examine_server
from hermes_mcp_auth_remote.cli.doctor_report import (
    configured_keys,
    describe_support,
    notes,
    request_event,
    support_rows,
)
from hermes_mcp_auth_remote.cli.output import (
    correct_address,
    error_members,
    exit_code,
    print_json,
    print_result,
)
from hermes_mcp_auth_remote.cli.owners import owner_notes
from hermes_mcp_auth_remote.cli.servers import current_configuration, current_home
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.cli.status import print_no_servers, print_warnings
from hermes_mcp_auth_remote.commands import command_for, login_command
from hermes_mcp_auth_remote.config import Configuration
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.http.traced_exchange import proxy_address_for
from hermes_mcp_auth_remote.phrases import (
    SERVER_SAYS,
    describe_token_refusal,
    display_url,
    quote_server_message,
    replace_unprintable,
)
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.default import service_at
from hermes_mcp_auth_remote.shown_program import with_shown_program
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.protocol import ANY
from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK, marked_text, table, wrap_text
from hermes_mcp_auth_remote.terminal.window import terminal_size
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server

# Examine servers concurrently: one that does not respond must not delay the others.
MAX_CONCURRENT_EXAMINATIONS = 8


def run(options: argparse.Namespace) -> int:
    """Run logins without changing anything and print what is wrong. Return the exit code."""
    if options.hermes:
        from hermes_mcp_auth_remote.cli.hermes_doctor import run_hermes_doctor

        return run_hermes_doctor(as_json=options.json)
    if options.server is None:
        return _examine_all(options)
    columns = terminal_size(sys.stdout)[0]
    examination = Examination(options.server, options.owner, columns, show_requests=not options.json)
    configuration = current_configuration()
    examination.config_warnings = (
        *owner_notes(service_at(current_home()), options.owner),
        *configuration.general_warnings(),
        *configuration.warnings(options.server),
    )
    run_until_stopped(examine_server(examination, configuration))
    for error in examination.errors:
        correct_address(error, options.arguments)
    if options.json:
        print_json(_report_event(examination))
    else:
        print_result(_text_report(examination))
    return exit_code(examination.errors[0]) if examination.errors else 0


def _examine_all(options: argparse.Namespace) -> int:
    """Examine all servers. Return the highest exit code. Raises ConfigError at the end."""
    configuration, config_error = current_configuration(), None
    try:
        configured_names = configuration.server_names()
    except ConfigError as error:
        configured_names, config_error = [], error
    keys = _select_keys(configured_names, service_at(current_home()), options.owner)
    # Users of chats share the servers: one examination per server is enough.
    names = list(dict.fromkeys(key.server_name for key in keys if key.owner == options.owner))
    columns = terminal_size(sys.stdout)[0]
    if not options.json and not names:
        print_no_servers(columns)
    examinations = [
        Examination(
            name,
            options.owner,
            columns,
            show_requests=False,
            config_warnings=configuration.warnings(name),
        )
        for name in names
    ]
    warnings = (*owner_notes(service_at(current_home()), options.owner), *configuration.general_warnings())
    print_warnings(warnings, as_json=options.json, columns=columns)
    run_until_stopped(_run_examinations(examinations, configuration, as_json=options.json))
    codes = [exit_code(examination.errors[0]) for examination in examinations if examination.errors]
    if options.json:
        print_json({"event": "summary", "checked": len(examinations), "failed": len(codes), "advice": None})
    elif examinations:
        print_result(f"\n{_summary(examinations, columns)}")
    if config_error is not None:
        raise config_error
    return max(codes, default=0)


def _select_keys(configured_names: list[str], service: AuthService, owner: Owner) -> list[CredentialKey]:
    """Return the configured servers, then the other stored logins.

    If `owner` is None, the result includes the logins of all owners.
    """
    # The store lists only one owner's sessions if that is enough.
    stored_keys = service.blocking.keys(ANY if owner is None else owner)
    return list(dict.fromkeys([*(CredentialKey(name, owner) for name in configured_names), *stored_keys]))


async def _run_examinations(
    examinations: list[Examination], configuration: Configuration, *, as_json: bool
) -> None:
    """Examine servers concurrently. Print each result when it is known."""
    semaphore = asyncio.Semaphore(MAX_CONCURRENT_EXAMINATIONS)

    async def run_examination(examination: Examination) -> None:
        async with semaphore:
            await examine_server(examination, configuration)
        if as_json:
            print_json(_report_event(examination))
        else:
            print_result(_short_report(examination))

    async with asyncio.TaskGroup() as group:
        for examination in examinations:
            group.create_task(run_examination(examination))


def _short_report(examination: Examination) -> str:
    """Return the result of one of several examinations: the first problem, or that there is none."""
    columns, name = examination.columns, replace_unprintable(examination.name)
    address = "" if examination.server is None else f" at {display_url(examination.server.url)}"
    if not examination.errors:
        mark = "  " if examination.is_uncertain else f"{CHECK_MARK} "
        lines = [f"{mark}{name}{address}", wrap_text(_advice(examination), columns, 2)]
    else:
        error = examination.errors[0]
        lines = [f"{CROSS_MARK} {name}{address}", wrap_text(replace_unprintable(str(error)), columns, 2)]
        lines.append(wrap_text(replace_unprintable(error.advice), columns, 2))
    lines += [wrap_text(f"Note: {replace_unprintable(note)}", columns, 2) for note in _notes(examination)]
    return "\n".join(lines)


def _summary(examinations: list[Examination], columns: int) -> str:
    failed = [examination for examination in examinations if examination.errors]
    count = f"{len(examinations)} server{'s' * (len(examinations) != 1)} examined"
    if not failed:
        return f"{count}. No problem was found."
    command = command_for("doctor", failed[0].server_argument, failed[0].owner)
    names = ", ".join(replace_unprintable(examination.name) for examination in failed)
    return "\n".join(
        [
            wrap_text(f"{count}. Something is wrong with: {names}", columns),
            with_shown_program(f"See each request: {command}"),
        ]
    )


def _report_event(examination: Examination) -> dict[str, object]:
    server = examination.server
    return {
        "event": "doctor",
        "server": examination.name,
        "owner": examination.owner,
        "url": None if server is None else display_url(server.url),
        "steps": [request_event(traced) for traced in examination.traced_requests],
        "supports": None if server is None else describe_support(examination.findings, server) or None,
        "configured": [] if server is None else configured_keys(server.options),
        "state": None if server is None else connection_state(examination, server).replace(" ", "_"),
        "stored": _stored_parts(examination.credentials),
        "network": None if server is None else _network_facts(examination, server),
        "notes": _notes(examination),
        "problems": [error_members(error) for error in examination.errors],
        "advice": _advice(examination),
    }


def _text_report(examination: Examination) -> str:
    parts: list[str] = []
    server, columns = examination.server, examination.columns
    if server is not None:
        rows = support_rows(describe_support(examination.findings, server))
        rows.append(("Configured", ", ".join(configured_keys(server.options)) or "nothing but the address"))
        rows.append(("Stored", ", ".join(_stored_parts(examination.credentials)) or "nothing"))
        rows.append(("Login", connection_state(examination, server)))
        network = _network_facts(examination, server)
        rows.append(("Proxy", str(network["proxy"] or "none")))
        rows.append(("Trusts", str(network["trusts"])))
        rows.append(("Reaches", str(network["reaches"])))
        parts.append(f"\n{table(rows, columns)}" if examination.traced_requests else table(rows, columns))
    parts += [f"\n{wrap_text(f'Note: {replace_unprintable(note)}', columns)}" for note in _notes(examination)]
    parts.append("")
    for error in examination.errors:
        parts.append(marked_text(CROSS_MARK, replace_unprintable(str(error)), columns))
        if error.server_message:
            parts.append(
                wrap_text(f"{SERVER_SAYS}: {quote_server_message(error.server_message)}", columns, 2)
            )
    advice = wrap_text(replace_unprintable(_advice(examination)), columns - 2 if columns else 0)
    mark = "  " if examination.errors or examination.is_uncertain else f"{CHECK_MARK} "
    parts.append(f"{mark}{advice}".replace("\n", "\n  "))
    return "\n".join(parts)


def _notes(examination: Examination) -> list[str]:
    credentials, refusal = examination.credentials, examination.token_refusal
    issuer = credentials.binding.issuer if credentials.binding else None
    texts = list(examination.config_warnings)
    if examination.server is None:
        return texts
    if refusal is not None:
        texts.append(describe_token_refusal(refusal))
    texts += notes(examination.findings, examination.server, issuer)
    if examination.was_unanswered:
        texts.append(
            "The last login ended without a response from the provider. The next registers another client."
        )
    return texts


def _advice(examination: Examination) -> str:
    """Return one remedy, for the first problem that a login would meet."""
    if examination.errors:
        return examination.errors[0].advice
    if examination.server is not None and examination.server.options.grant != "authorization_code":
        return f"Nothing is wrong. No login is needed: run {_token_command(examination)}"
    command = login_command(examination.server_argument, examination.owner)
    is_connected = examination.server is not None and (
        connection_state(examination, examination.server) == "connected"
    )
    if examination.is_uncertain:
        state = "You are connected. " if is_connected else ""
        return f"{state}Whether a login works cannot be told without trying: run {command}"
    return "Nothing is wrong, and you are connected." if is_connected else f"Nothing is wrong: run {command}"


def _token_command(examination: Examination) -> str:
    return command_for("token", examination.server_argument, examination.owner)


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


def _network_facts(examination: Examination, server: Server) -> dict[str, object]:
    options = server.options
    configured_authorities = [
        f"{name} ({os.environ[name]})" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)
    ]
    authorities = ", ".join(configured_authorities) or "the authorities of this system and of certifi"
    trusts = authorities if options.ca_file is None else f"{options.ca_file}, elsewhere also {authorities}"
    return {
        "proxy": next(
            (traced.proxy for traced in examination.traced_requests if traced.proxy),
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

"""TLS contexts: trusted authorities and client certificates, from configuration and environment."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import certifi

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.hermes_home import expand_user
from hermes_mcp_auth_remote.values import ServerOptions


def tls_context(
    options: ServerOptions, environ: Mapping[str, str], *, is_server_host: bool
) -> ssl.SSLContext:
    """Return the TLS context for a connection; raises ConfigError for files that cannot be used.

    `is_server_host` is True for the host of the MCP server itself. There, only `ca_file` is trusted (if set),
    the client certificate is sent, and `ssl_verify: false` applies. For other hosts, `ca_file` is trusted in
    addition to the default authorities: SSL_CERT_FILE and SSL_CERT_DIR, else those of the system and certifi.
    """
    ca_file = _expand_path(options.ca_file)
    default_ca_paths = (environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None)
    client_certificate = (
        (_expand_path(options.client_cert), _expand_path(options.client_key))
        if is_server_host
        else (None, None)
    )
    files = (ca_file, *default_ca_paths, *client_certificate)
    try:
        return _build_context(
            ca_file,
            None if is_server_host and ca_file else default_ca_paths,
            client_certificate,
            tuple(_mtime_ns(file) for file in files),
            verify=options.verify_tls or not is_server_host,
        )
    except (OSError, ssl.SSLError):
        default_ca_file = None if is_server_host and ca_file else default_ca_paths[0]
        for setting, path in (("ssl_verify", ca_file), ("SSL_CERT_FILE", default_ca_file)):
            if path is not None and not _has_certificates(path):
                raise ConfigError(
                    f"The certificate file {path} (`{setting}`) cannot be used.",
                    f"Check that it is a file with PEM certificates, or remove `{setting}`.",
                ) from None
        raise ConfigError(
            "A configured certificate file of this server cannot be used.",
            "Check `ssl_verify`, `client_cert`, `client_key`, SSL_CERT_FILE and SSL_CERT_DIR; a key must not "
            "be encrypted.",
        ) from None


def _expand_path(file: str | None) -> str | None:
    return expand_user(file, "Write the paths of certificate files in full.") if file else None


def _has_certificates(ca_file: str) -> bool:
    """True if a file can be read and contains certificate authorities."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except (OSError, ssl.SSLError):
        return False
    return True


def _mtime_ns(file: str | None) -> int:
    # A long-running process must notice a renewed certificate. If SSL_CERT_DIR lists several directories,
    # stat fails and the time is 0.
    try:
        return Path(file).stat().st_mtime_ns if file else 0
    except OSError:
        return 0


@lru_cache(maxsize=32)  # building one takes 17 ms; connections can share it
def _build_context(
    ca_file: str | None,
    default_ca_paths: tuple[str | None, str | None] | None,
    client_certificate: tuple[str | None, str | None],
    _mtimes_ns: tuple[int, ...],
    *,
    verify: bool,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        context.load_verify_locations(ca_file)
    if default_ca_paths is not None and any(default_ca_paths):
        context.load_verify_locations(*default_ca_paths)
    elif default_ca_paths is not None:
        # Load both: a container may have no system store, and certifi does not contain a company's CA.
        context.load_default_certs()
        context.load_verify_locations(certifi.where())
    certificate, key = client_certificate
    if certificate:
        # Pass a password: without one, OpenSSL prompts on the terminal and blocks.
        context.load_cert_chain(certificate, key, password="")
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

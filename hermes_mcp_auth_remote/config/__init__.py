"""Read Server values from HERMES_HOME, config.yaml and .env, and validate them once.

Hermes uses OAuth only for an entry with `auth: oauth`, and `load_servers` returns only such entries. A user
who names one server wants to log in there, so `find_server` also accepts a `url` entry without `auth`. No
message of this package shows a value, because it may be a secret, or contain one through `${VAR}`.

The functions here read the files once for each call. A caller that needs more than one value calls
`read_configuration` once and uses the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.config.configuration import Configuration, read_configuration, scheme_missing
from hermes_mcp_auth_remote.config.server_names import check_server_name
from hermes_mcp_auth_remote.errors import ConfigError, UnsafeUrl
from hermes_mcp_auth_remote.hermes_home import hermes_home
from hermes_mcp_auth_remote.oauth.urls import add_scheme, safe_url
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Server

__all__ = [
    "Configuration",
    "find_server",
    "hermes_home_path",
    "load_servers",
    "read_configuration",
    "server_from_url",
]


def hermes_home_path(environ: Mapping[str, str]) -> Path:
    """Return the home directory of Hermes: HERMES_HOME, else ~/.hermes."""
    return Path(hermes_home(environ))


@with_hidden_locals
def load_servers(home: Path, environ: Mapping[str, str]) -> dict[str, Server]:
    """Read every enabled server for which Hermes uses OAuth, by name; empty if there is no config.yaml.

    Raises ConfigError, which names the file, the line or the key.
    """
    return read_configuration(home, environ).load_servers()


@with_hidden_locals
def find_server(name: str, home: Path, environ: Mapping[str, str]) -> Server:
    """Read one server by its name, even if its entry has no `auth`.

    Raises ServerNotFound, which lists similar names, or ConfigError.
    """
    return read_configuration(home, environ).find_server(name)


@with_hidden_locals
def server_from_url(url: str, name: str | None = None) -> Server:
    """Return a server for a URL that is not in config.yaml.

    If `name` is None, the name is a slug of the URL such as "linear-app", with a hash of the query if it
    has one. Raises ConfigError if the URL is neither https nor http on this machine, or if the name is too
    long. Raises SchemeMissing for `host/path`.
    """
    try:
        checked_url = safe_url(url.strip(), "address")
    except UnsafeUrl as error:
        if (meant_url := add_scheme(url)) is not None:
            raise scheme_missing(url, meant_url) from None
        raise ConfigError(str(error), "Pass the server's https address.") from None
    if name is not None:
        check_server_name(name)
    parts = urlsplit(checked_url)
    # Omit common words. Keep the path, because one host may have several servers.
    words = [word for word in (parts.hostname or "").split(".") if word not in {"mcp", "www", "api"}]
    words += [str(parts.port)] if parts.port else []
    words += [word for word in parts.path.split("/") if word.lower() not in {"mcp", "sse", "v1"}]
    slug = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-") for word in words)))
    slug = slug[:64].strip("-") or "server"
    if parts.query:
        # Two processes may each log in to a new address at the same time, before a name is taken: one login
        # would replace the tokens of the other. The query may contain a key, so the name has a hash of it.
        from hashlib import sha256  # noqa: PLC0415  few addresses have a query

        slug += f"-{sha256(parts.query.encode()).hexdigest()[:8]}"
    return Server(name or slug, checked_url)

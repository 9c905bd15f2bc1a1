"""The two files on disk: sections of config.yaml as YAML gives them, and .env. No content is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from hermes_mcp_auth_remote.errors import ConfigError

_ASSIGNMENT = re.compile(
    r"""
    ^ [ \t]* (?: export [ \t]+ )? ([A-Za-z_][\w.-]*) [ \t]* = [ \t]*
    (?: "((?: [^"\\] | \\. )*)"
      | '((?: [^'\\] | \\. )*)'
      | ([^\r\n]*?) (?: [ \t]+ \# [^\r\n]* )? (?= \r | \n | \Z )
    )
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read_entries(path: Path) -> dict[str, object]:
    """Read the `mcp_servers` mapping of a config.yaml; empty where either is missing.

    Raises ConfigError with path and line for broken YAML and for a key given twice. The rest of the file
    is Hermes's own business and is not judged.
    """
    entries = read_section(path, "mcp_servers")
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: `mcp_servers` must be a mapping of names to servers.")
    for name in cast("dict[object, object]", entries):
        if not isinstance(name, str):
            raise ConfigError(f"{path}: a name in `mcp_servers` is not text; put it in quotes.")
    return cast("dict[str, object]", entries)


def read_section(path: Path, name: str) -> object:
    """Read what a config.yaml says under one key of its own; None where either is missing.

    Raises ConfigError as `read_entries` does.
    """
    text = _read_text(path)
    if text is None:
        return None
    # A YAML library is much to load for processes that read no config.yaml, or not yet.
    from hermes_mcp_auth_remote.config.parsing import parse_section  # noqa: PLC0415

    return parse_section(text, name, path)


def read_variables(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what `${VAR}` can mean: the environment, and over it the .env file, as in Hermes."""
    variables = dict(environ)
    for name, double, single, bare in _ASSIGNMENT.findall(_read_text(path) or ""):
        quoted = re.sub(r"\\([nrt\\\"'$])", lambda found: _ESCAPES.get(found[1], found[1]), double)
        variables[name] = quoted or re.sub(r"\\([\\'])", r"\1", single) or bare.strip()
    return variables


def _read_text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Mend its permissions.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.", "Save it as UTF-8.") from None

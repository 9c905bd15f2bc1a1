"""The two files on disk: sections of config.yaml as YAML gives them, and .env. No content is shown."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.hermes_home import file_identity

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
# A file that was changed less than this before it is read may change again within one tick of its clock.
_MTIME_RESOLUTION_NS = 50_000_000
# The clock of some file systems (FAT, HFS+, older NFS) counts seconds, or pairs of seconds.
_COARSE_MTIME_RESOLUTION_NS = 3_000_000_000
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a config.yaml or a .env holds (None: there is none), and its identity (`hermes.file_identity`).

    The identity is None if the file was changed so recently that another change could keep the same times.
    """

    path: Path
    text: str | None = field(repr=False)
    identity: str | None


def read_config_file(path: Path) -> ConfigFile:
    """Read a file with the identity of what is read, whatever replaces it meanwhile; raises ConfigError."""
    now = time.time_ns()
    try:
        link = path.lstat()
    except OSError:
        link = None
    try:
        with path.open("rb") as file:
            # Before the content: a change from now on gets other times than these.
            status = os.fstat(file.fileno())
            text = file.read().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ConfigFile(path, None, file_identity(link, None))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Mend its permissions.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.", "Save it as UTF-8.") from None
    return ConfigFile(
        path, text, file_identity(link, status) if _can_detect_later_changes(status, now) else None
    )


def _can_detect_later_changes(status: os.stat_result, now_ns: int) -> bool:
    """True if a change after `now` (epoch nanoseconds) cannot get the same time as the last change.

    Windows has no time of the last change; there, `st_ctime` is when the file was made.
    """
    changed_at = status.st_ctime_ns if os.name == "posix" else status.st_mtime_ns
    is_coarse = changed_at % 1_000_000_000 == 0
    return now_ns - changed_at > (_COARSE_MTIME_RESOLUTION_NS if is_coarse else _MTIME_RESOLUTION_NS)


def read_entries(path: Path) -> dict[str, object]:
    """Read the `mcp_servers` mapping of a config.yaml; raises ConfigError as `entries_in` does."""
    return entries_in(read_config_file(path))


def entries_in(file: ConfigFile) -> dict[str, object]:
    """Return the `mcp_servers` mapping of a config.yaml; empty where either is missing.

    Raises ConfigError with path and line for broken YAML and for a key given twice. The rest of the file
    is Hermes's own business and is not judged.
    """
    entries, path = _section_in(file, "mcp_servers"), file.path
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
    return _section_in(read_config_file(path), name)


def _section_in(file: ConfigFile, name: str) -> object:
    if file.text is None:
        return None
    # A YAML library is much to load for processes that read no config.yaml, or not yet.
    from hermes_mcp_auth_remote.config.yaml_section import parse_section  # noqa: PLC0415

    return parse_section(file.text, name, file.path)


def read_variables(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what `${VAR}` can mean: the environment, and over it the .env file, as in Hermes."""
    return variables_in(read_config_file(path), environ)


def variables_in(file: ConfigFile, environ: Mapping[str, str]) -> dict[str, str]:
    """Do what `read_variables` does, with a .env that was read before."""
    variables = dict(environ)
    for name, double, single, bare in _ASSIGNMENT.findall(file.text or ""):
        quoted = re.sub(r"\\([nrt\\\"'$])", lambda found: _ESCAPES.get(found[1], found[1]), double)
        variables[name] = quoted or re.sub(r"\\([\\'])", r"\1", single) or bare.strip()
    return variables

"""Read sections of config.yaml, and .env. No message shows the content of these files."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_mcp_auth_remote.config.file_owners import check_trusted, warn_about_readable_tokens
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.hermes_home import file_identity, is_settled

if TYPE_CHECKING:
    from hermes_mcp_auth_remote.config.yaml_section import YamlDocument

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


@dataclass(frozen=True)
class ConfigFile:
    """A config.yaml or .env: its text (None: there is no file) and its `hermes_home.file_identity`.

    The identity is None if the file changed so recently that another change could keep the same times.
    """

    path: Path
    text: str | None = field(repr=False)
    identity: str | None

    @cached_property
    def document(self) -> YamlDocument | None:
        """The content as YAML, parsed once; None if there is no file. Raises ConfigError."""
        if self.text is None:
            return None
        # Import late: the YAML library loads slowly, and some processes read no config.yaml.
        from hermes_mcp_auth_remote.config.yaml_section import YamlDocument  # noqa: PLC0415

        return YamlDocument(self.text, self.path)


def read_config_file(path: Path) -> ConfigFile:
    """Read a file and the identity of the content that was read; raises ConfigError."""
    now = time.time_ns()
    try:
        link = path.lstat()
    except OSError:
        link = None
    try:
        with path.open("rb") as file:
            # Read the status before the content: if the file changes in between, its next status differs.
            status = os.fstat(file.fileno())
            check_trusted(path, status)
            text = file.read().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ConfigFile(path, None, file_identity(link, None))
    except OSError as error:
        advice = "Replace it by a file." if error.errno == errno.EISDIR else "Fix its permissions."
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", advice) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.", "Save it as UTF-8.") from None
    if path.name == ".env":
        warn_about_readable_tokens(path, status, text)
    # On Windows, `st_ctime` is the creation time.
    changed_at_ns = status.st_ctime_ns if os.name == "posix" else status.st_mtime_ns
    return ConfigFile(path, text, file_identity(link, status) if is_settled(changed_at_ns, now) else None)


def read_variables(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for `${VAR}`: the .env file overrides the environment, as in Hermes."""
    return variables_in(read_config_file(path), environ)


def variables_in(file: ConfigFile, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the same as `read_variables` for a .env that was already read."""
    variables = dict(environ)
    for name, double, single, bare in _ASSIGNMENT.findall(file.text or ""):
        quoted = re.sub(r"\\([nrt\\\"'$])", lambda match: _ESCAPES.get(match[1], match[1]), double)
        variables[name] = quoted or re.sub(r"\\([\\'])", r"\1", single) or bare.strip()
    return variables

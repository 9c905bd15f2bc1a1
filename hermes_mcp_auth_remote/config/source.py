"""The two files on disk: sections of config.yaml as YAML gives them, and .env. No content is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import yaml

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
    return None if text is None else _parse(text, name, path)


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


def _parse(text: str, name: str, path: Path) -> object:
    # The loader in C is ten times as fast; not every platform has it.
    loader_class: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_class(text)
        try:
            section = _section_of(loader.get_single_node(), name, path)
            if section is None:
                return None
            _refuse_duplicates(section, path, set())
            # The stubs leave the argument of construct_document open.
            return cast("object", loader.construct_document(section))  # pyright: ignore[reportUnknownMemberType]
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        # Its own text quotes the file, which may hold secrets.
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: this is not valid YAML.") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: `{name}` holds a value that YAML cannot read.") from None


def _section_of(root: yaml.Node | None, name: str, path: Path) -> yaml.Node | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", root.value)
    found = [pair for pair in pairs if pair[0].value == name]
    if len(found) > 1:
        raise _duplicate(found[1][0], path)
    return found[0][1] if found else None


def _refuse_duplicates(node: yaml.Node, path: Path, seen: set[int]) -> None:
    """Refuse a key given twice: YAML takes the last, and the operator may be looking at the first."""
    # Aliases share nodes, and may even go in circles.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in cast("list[yaml.Node]", node.value):
            _refuse_duplicates(item, path, seen)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in keys:
                    raise _duplicate(key, path)
                keys.add(key.value)
            _refuse_duplicates(value, path, seen)


def _duplicate(key: yaml.Node, path: Path) -> ConfigError:
    line = key.start_mark.line + 1 if key.start_mark else 0
    return ConfigError(
        f"{path}, line {line}: the key `{key.value}` is given twice.", "Delete one of the two."
    )

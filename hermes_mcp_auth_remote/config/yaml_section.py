"""YAML as an operator writes it: one section, with no key given twice, and no content shown."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import yaml

from hermes_mcp_auth_remote.errors import ConfigError


def parse_section(text: str, name: str, path: Path) -> object:
    """Return what a text in YAML has under one key of its own, None where that is missing.

    Raises ConfigError with path and line for broken YAML and for a key given twice.
    """
    # The loader in C is ten times as fast; not every platform has it.
    loader_class: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_class(text)
        try:
            section = _find_section(loader.get_single_node(), name, path)
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


def _find_section(root: yaml.Node | None, name: str, path: Path) -> yaml.Node | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", root.value)
    found = [pair for pair in pairs if pair[0].value == name]
    if len(found) > 1:
        raise _duplicate_key_error(found[1][0], path)
    return found[0][1] if found else None


def _refuse_duplicates(node: yaml.Node, path: Path, visited_ids: set[int]) -> None:
    """Refuse a key given twice: YAML takes the last, and the operator may be looking at the first."""
    # Aliases share nodes, and may even go in circles.
    if id(node) in visited_ids:
        return
    visited_ids.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in cast("list[yaml.Node]", node.value):
            _refuse_duplicates(item, path, visited_ids)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in keys:
                    raise _duplicate_key_error(key, path)
                keys.add(key.value)
            _refuse_duplicates(value, path, visited_ids)


def _duplicate_key_error(key: yaml.Node, path: Path) -> ConfigError:
    line = key.start_mark.line + 1 if key.start_mark else 0
    return ConfigError(
        f"{path}, line {line}: the key `{key.value}` is given twice.", "Delete one of the two."
    )

"""Parse one section of a YAML file; refuse duplicate keys and never show the content in a message."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import yaml

from hermes_mcp_auth_remote.errors import ConfigError


def parse_section(text: str, name: str, path: Path) -> object:
    """Return the value of a top-level key of a YAML text, None if the key is missing.

    Raises ConfigError with path and line for invalid YAML and for a duplicate key.
    """
    # The C loader is ten times as fast, but some platforms lack it.
    loader_class: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_class(text)
        try:
            section = _find_section(loader.get_single_node(), name, path)
            if section is None:
                return None
            _refuse_duplicates(section, path, set())
            # The stubs do not declare the argument type of construct_document.
            return cast("object", loader.construct_document(section))  # pyright: ignore[reportUnknownMemberType]
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        # The exception's text quotes the file, which may contain secrets.
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line_note = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line_note}: this is not valid YAML.") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: `{name}` contains a value that YAML cannot read.") from None


def _find_section(root: yaml.Node | None, name: str, path: Path) -> yaml.Node | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", root.value)
    matching_pairs = [pair for pair in pairs if pair[0].value == name]
    if len(matching_pairs) > 1:
        raise _duplicate_key_error(matching_pairs[1][0], path)
    return matching_pairs[0][1] if matching_pairs else None


def _refuse_duplicates(node: yaml.Node, path: Path, visited_ids: set[int]) -> None:
    """Raise ConfigError for a duplicate key: YAML uses the last value, the operator may read the first."""
    # Aliases share nodes and may form cycles.
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

"""Parse a YAML file once, and read its sections; refuse duplicate keys and never show the content."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import yaml

from hermes_mcp_auth_remote.errors import ConfigError


class YamlDocument:
    """The top level of a YAML file. The values below a key are read when a caller asks for its section."""

    def __init__(self, text: str, path: Path) -> None:
        """Parse a text; raises ConfigError with path and line if it is not valid YAML."""
        self._path = path
        # The C loader is ten times as fast, but some platforms lack it.
        loader_class: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            loader = loader_class(text)
            try:
                root = loader.get_single_node()
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            raise _invalid_yaml_error(error, path, text) from None
        except (ValueError, RecursionError):
            raise ConfigError(f"{path} contains a value that YAML cannot read.") from None
        pairs = cast(
            "list[tuple[yaml.Node, yaml.Node]]", root.value if isinstance(root, yaml.MappingNode) else []
        )
        self._pairs = [(key, value) for key, value in pairs if isinstance(key, yaml.ScalarNode)]

    @property
    def names(self) -> list[str]:
        """The top-level keys."""
        return [cast("str", key.value) for key, _ in self._pairs]

    def section(self, name: str) -> object:
        """Return the value of a top-level key, None if the key is missing.

        Raises ConfigError with path and line for a duplicate key, and for a value that YAML cannot read.
        """
        matching_pairs = [pair for pair in self._pairs if pair[0].value == name]
        if len(matching_pairs) > 1:
            raise _duplicate_key_error(matching_pairs[1][0], self._path)
        if not matching_pairs:
            return None
        section = matching_pairs[0][1]
        try:
            _refuse_duplicates(section, self._path, set())
            # The stubs do not declare the argument type of construct_document.
            constructor = yaml.constructor.SafeConstructor()
            return cast("object", constructor.construct_document(section))  # pyright: ignore[reportUnknownMemberType]
        except yaml.YAMLError as error:
            raise _invalid_yaml_error(error, self._path) from None
        except (ValueError, RecursionError):
            raise ConfigError(f"{self._path}: `{name}` contains a value that YAML cannot read.") from None


def _invalid_yaml_error(error: yaml.YAMLError, path: Path, text: str = "") -> ConfigError:
    # The exception's text quotes the file, which may contain secrets.
    mark: yaml.Mark | None = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    number = None if mark is None else mark.line
    line_note = "" if number is None else f", line {number + 1}"
    line = "" if number is None else "".join(text.splitlines()[number : number + 1])
    has_tab = "\t" in line[: len(line) - len(line.lstrip())]
    advice = "A line begins with a tab, which YAML does not allow: use spaces." if has_tab else None
    return ConfigError(f"{path}{line_note}: this is not valid YAML.", advice)


def _refuse_duplicates(node: yaml.Node, path: Path, visited_ids: set[int]) -> None:
    """Raise ConfigError for a duplicate key: YAML uses the last value, but the operator may see the first."""
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

"""Retired names do not return: a reader could not guess their meaning.

`retired_names.txt` lists modules by path, and definitions as `path:name`.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
RETIRED = Path(__file__).with_name("retired_names.txt").read_text("utf-8").split()


def defined_names(path: Path) -> set[str]:
    """Return the classes, functions and variables that a module defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def test_no_module_has_a_retired_path() -> None:
    retired = [entry for entry in RETIRED if ":" not in entry]
    assert len(retired) > 50
    assert [path for path in retired if (ROOT / path).exists()] == []


def test_no_definition_has_a_retired_name() -> None:
    by_path: dict[str, set[str]] = {}
    for entry in RETIRED:
        path, _, name = entry.partition(":")
        if name:
            by_path.setdefault(path, set()).add(name)
    assert len(by_path) > 50
    existing = {path: ROOT / path for path in by_path if (ROOT / path).exists()}
    assert len(existing) > 50
    reused = {path: sorted(by_path[path] & defined_names(file)) for path, file in existing.items()}
    assert {path: names for path, names in reused.items() if names} == {}

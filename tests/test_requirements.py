"""Every requirement has a test, and every id in `@covers` exists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import REQUIREMENTS, covers

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


def list_test_files() -> Iterator[Path]:
    yield from (path for path in sorted(TESTS.rglob("test_*.py")) if "node_modules" not in path.parts)


def covered_ids(path: Path) -> Iterator[str]:
    """Yield the ids in the `@covers(...)` decorators of a file's test functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "covers":
                yield from (ast.literal_eval(argument) for argument in decorator.args)


def test_every_requirement_is_covered_and_every_covered_id_exists() -> None:
    covered = {name for path in list_test_files() for name in covered_ids(path)}
    required = {requirement.id for requirement in REQUIREMENTS}
    assert sorted(required - covered) == [], "requirements without a test"
    assert sorted(covered - required) == [], "tests that name an unknown requirement"


def test_every_requirement_is_unique_and_has_a_sentence_and_a_source() -> None:
    ids = [requirement.id for requirement in REQUIREMENTS]
    assert len(ids) == len(set(ids))
    for requirement in REQUIREMENTS:
        assert requirement.sentence.endswith(".")
        assert requirement.source


def test_covers_raises_key_error_for_an_unknown_requirement() -> None:
    with pytest.raises(KeyError, match="no-such-thing"):
        covers("no-such-thing")

"""Tell docstrings from the other texts of a module's source."""

from __future__ import annotations

import ast


def docstring_ids(tree: ast.AST) -> set[int]:
    """Return the `id` of each node that is the value of a docstring in the tree."""
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }

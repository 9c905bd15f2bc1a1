"""Only gateway_hooks/hermes/internals.py may use a name of Hermes that plugins are not meant to use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import covers

FOLDER = Path(__file__).parents[2] / "gateway_hooks" / "hermes"
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "internals.py")
HERMES_PACKAGES = frozenset(
    {
        "agent",
        "gateway",
        "hermes_cli",
        "hermes_constants",
        "hermes_logging",
        "hermes_state",
        "plugins",
        "tools",
    }
)
# discord.py documents that a program sets a client's event handler by assignment.
ALLOWED = {"discord.py": ["assignment to self._client.on_message"] * 2}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(node: ast.expr) -> bool:
    """Return whether an attribute's object is `self`, `cls` or `super()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def attribute_findings(node: ast.Attribute) -> Iterator[str]:
    if is_private(node.attr) and not is_own(node.value):
        yield f"private attribute {node.attr}"
    if isinstance(node.ctx, ast.Store | ast.Del) and not is_own(node.value):
        yield f"assignment to {ast.unparse(node)}"
    if node.attr == "modules" and isinstance(node.value, ast.Name) and node.value.id == "sys":
        yield "sys.modules"


def call_findings(node: ast.Call) -> Iterator[str]:
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if function in {"getattr", "hasattr"} and len(node.args) > 1:
        name = node.args[1]
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            yield f"{function} with a computed name"
        elif is_private(name.value):
            yield f"{function} of {name.value}"
    if function in {"setattr", "delattr", "import_module", "__import__", "_import_name"}:
        yield f"call of {function}"


def import_findings(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [] if node.level else [node.module or ""]
        yield from (f"import of {alias.name}" for alias in node.names if is_private(alias.name))
    yield from (f"import of {name}" for name in modules if name.split(".")[0] in HERMES_PACKAGES)


def findings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield from attribute_findings(node)
        elif isinstance(node, ast.Call):
            yield from call_findings(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from import_findings(node)
    if "SLF001" in source:
        yield "noqa: SLF001"


@covers("hermes-moved")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_internals_uses_private_names_of_hermes(path: Path) -> None:
    assert sorted(findings(path.read_text())) == ALLOWED.get(path.name, [])


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("adapter._client.close()", "private attribute _client"),
        ("super()._close(); self._close(); cls._close()", None),
        ("event.text = ''", "assignment to event.text"),
        ("del event.text", "assignment to event.text"),
        ("self.text = ''", None),
        ("getattr(adapter, '_app', None)", "getattr of _app"),
        ("getattr(adapter, 'app', None)", None),
        ("getattr(adapter, name)", "getattr with a computed name"),
        ("setattr(event, 'text', '')", "call of setattr"),
        ("hermes._import_name('a')", "call of _import_name"),
        ("importlib.import_module('tools.mcp_tool')", "call of import_module"),
        ("sys.modules.get('gateway.run')", "sys.modules"),
        ("import gateway.run", "import of gateway.run"),
        ("from tools.mcp_tool import discover_mcp_tools", "import of tools.mcp_tool"),
        ("from gateway_hooks.hermes import internals", None),
        ("from gateway_hooks.hermes.internals import _import_name", "import of _import_name"),
        ("adapter.close()  # noqa: SLF001", "noqa: SLF001"),
    ],
)
def test_the_check_finds_each_way_to_a_private_name(source: str, finding: str | None) -> None:
    assert (finding in findings(source)) if finding else not list(findings(source))

"""Each class with a lock, a thread or a future is reset in a forked child, or listed here with a reason."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin
from tests.requirements import covers
from tests.store.builders import KEY, ROOT

# asyncio's own primitives belong to an event loop. A forked child has no running event loop.
PRIMITIVES = {
    "Lock",
    "RLock",
    "Condition",
    "Semaphore",
    "BoundedSemaphore",
    "Event",
    "Barrier",
    "Thread",
    "Timer",
    "Future",
    "ThreadPoolExecutor",
}
MODULES = {"threading", "concurrent"}
PACKAGES = ("hermes_mcp_auth_remote", "gateway_hooks")
NOT_RESET = {
    "hermes_mcp_auth_remote.service.shared_discovery._RunningDiscovery": "SharedDiscovery forgets it",
    "hermes_mcp_auth_remote.service.device_logins.DevicePoller": "PollScheduler resets its job runner",
    "hermes_mcp_auth_remote.threads.DaemonExecutor": "the default executor of one event loop",
    "hermes_mcp_auth_remote.terminal.input.ThreadedLineSource": "reads the terminal of one event loop",
    "hermes_mcp_auth_remote.bridge.stdio.LineWriter": "writes for the connect command, which does not fork",
    "hermes_mcp_auth_remote.demo.servers._UvicornServer": "a server of the demo command, which does not fork",
}


def primitive_names(tree: ast.Module) -> set[str]:
    """Return the names by which a module imports locks, threads and futures."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            names |= {alias.asname or alias.name for alias in node.names if alias.name in PRIMITIVES}
    return names


def uses_primitive(node: ast.AST, names: set[str]) -> bool:
    """True if code creates a primitive, or passes its class to `field(default_factory=...)`."""
    candidates: list[ast.expr] = []
    for child in ast.walk(node):
        if isinstance(child, ast.Call):
            candidates += [child.func, *(keyword.value for keyword in child.keywords)]
    for expression in candidates:
        candidate = expression.value if isinstance(expression, ast.Subscript) else expression
        if isinstance(candidate, ast.Name) and candidate.id in names:
            return True
        if (
            isinstance(candidate, ast.Attribute)
            and candidate.attr in PRIMITIVES
            and isinstance(candidate.value, ast.Name)
            and candidate.value.id == "threading"
        ):
            return True
    return False


def bases_with_primitives(node: ast.ClassDef, names: set[str]) -> bool:
    return any(isinstance(base, ast.Name) and base.id in names for base in node.bases)


def holders() -> Iterator[tuple[str, ast.ClassDef | None, str]]:
    """Yield each class that uses a primitive, and each module that creates one at import."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text("utf-8")
            tree = ast.parse(text)
            names, module = primitive_names(tree), ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    if uses_primitive(node, names) or bases_with_primitives(node, names):
                        yield f"{module}.{node.name}", node, text
                elif isinstance(node, ast.Assign | ast.AnnAssign) and uses_primitive(node, names):
                    yield f"{module}: line {node.lineno}", None, text


@covers("fork-reset")
def test_every_holder_of_a_lock_a_thread_or_a_future_is_reset_after_a_fork() -> None:
    holders_by_name = {name: (node, text) for name, node, text in holders()}
    not_reset = {
        name
        for name, (node, text) in holders_by_name.items()
        if node is None
        or not any(isinstance(item, ast.FunctionDef) and item.name == "reset_in_child" for item in node.body)
        or "reset_after_fork(self)" not in text
    }
    assert not_reset - NOT_RESET.keys() == set()
    # The list contains no class that no longer exists.
    assert NOT_RESET.keys() <= holders_by_name.keys()
    assert len(holders_by_name) - len(not_reset) >= 7


@covers("fork-reset")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_was_forked_while_a_login_is_prompted_does_not_wait_for_it(tmp_path: Path) -> None:
    logins = AuthService(tmp_path)._interactive_logins
    logins._login_starts[KEY, "https://notes.example/mcp", Origin("terminal")] = Future()
    with logins._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if logins._lock.acquire(timeout=20) and not logins._login_starts else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(logins._login_starts) == 1

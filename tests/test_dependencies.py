"""What pyproject.toml admits, and what the lock files pin."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.requirements import covers

ROOT = Path(__file__).parents[1]
PACKAGES = ("hermes_mcp_auth_remote", "gateway_hooks")
LOCKS = (
    "requirements.lock",
    "tests/hermes/requirements.lock",
    "fuzz/requirements.lock",
    "benchmarks/requirements.lock",
)
# The last version with a known vulnerability: CVE-2024-39689, CVE-2026-26007, CVE-2025-43859, CVE-2025-69223,
# CVE-2025-62727, CVE-2025-67725.
VULNERABLE = {
    "certifi": "2024.6.2",
    "cryptography": "46.0.4",
    "h11": "0.14.0",
    "aiohttp": "3.13.2",
    "starlette": "0.49.0",
    "tornado": "6.5.2",
}
# The package of a module with another name. PyYAML, python-telegram-bot and discord.py.
PACKAGE_NAMES = {"yaml": "pyyaml", "telegram": "python-telegram-bot", "discord": "discord-py"}


def admitted() -> dict[str, list[Requirement]]:
    """Return what the package and its extras require, by the name of the dependency."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    requirements: dict[str, list[Requirement]] = {}
    for text in texts:
        requirement = Requirement(text)
        requirements.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return requirements


def imported_modules() -> Iterator[str]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.partition(".")[0]


@covers("dependencies")
@pytest.mark.parametrize("name", VULNERABLE)
def test_no_version_with_a_known_vulnerability_is_admitted(name: str) -> None:
    requirements = admitted()[name]
    assert not any(requirement.specifier.contains(VULNERABLE[name]) for requirement in requirements)


@covers("dependencies")
def test_each_imported_package_is_declared() -> None:
    modules = set(imported_modules()) - set(sys.stdlib_module_names) - set(PACKAGES)
    assert modules >= {"h11", "httpcore", "yarl"}
    assert {canonicalize_name(PACKAGE_NAMES.get(module, module)) for module in modules} <= set(admitted())


@covers("dependencies")
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_pins_no_vulnerable_version_and_has_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", text, re.MULTILINE))
    assert pins
    for name in VULNERABLE.keys() & pins.keys():
        for requirement in admitted()[name]:
            assert requirement.specifier.contains(pins[name]), f"{name} {pins[name]}: run `make lock`"
    assert "://" not in text

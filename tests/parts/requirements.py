"""Programs that the tests require. If one is missing, the test fails and names the package to install."""

from __future__ import annotations

import shutil


class MissingDependency(Exception):
    """A required component is missing. Tests fail instead of skipping: a skipped test proves nothing."""


def find_program(name: str, package: str) -> str:
    """Return the path of a program, also in sbin folders; raise MissingDependency if there is none."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise MissingDependency(f"{name} is missing; install the Debian package {package}.")
    return path

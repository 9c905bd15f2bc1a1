"""What the tests need of the machine: a missing part fails its test, and says what to install."""

from __future__ import annotations

import shutil


class MissingPart(Exception):
    """A real component is not there. Tests never skip for that: a skipped test proves nothing."""


def program(name: str, package: str) -> str:
    """Return the path of a program, also of one in an sbin folder; raises MissingPart."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise MissingPart(f"{name} is missing; install the Debian package {package}.")
    return path

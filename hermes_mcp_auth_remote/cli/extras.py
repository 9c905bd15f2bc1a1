"""The command that installs what a verb needs beyond the required packages."""

from __future__ import annotations

import re

from hermes_mcp_auth_remote.installation import install_command

PACKAGE = "hermes-mcp-auth-remote"
_EXTRA = re.compile(r"""\bextra == ["']([\w-]+)["']""")


def install_extras_command(*extras: str) -> str:
    """Return the command that installs the packages of some extras of this package, quoted for a shell.

    The command names these packages, not this package: no index has this package yet.
    """
    # Import late: only an error needs the metadata of packages.
    from importlib import metadata

    try:
        requirements = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        # The source is used without an installation, so it is the root of a clone.
        return install_command(f".[{','.join(extras)}]")
    packages = dict.fromkeys(
        specifier.strip()
        for specifier, _, marker in (requirement.partition(";") for requirement in requirements)
        if (match := _EXTRA.search(marker)) is not None and match[1] in extras
    )
    return install_command(*packages)

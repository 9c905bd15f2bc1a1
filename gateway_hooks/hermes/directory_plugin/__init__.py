"""The plugin as a folder: HERMES_HOME/plugins/mcp-auth-remote, with the package in its folder `lib`.

Use this folder if you cannot change the environment of Hermes, or if each update of Hermes replaces the
environment (docs/hermes.md).
"""

import sys
from pathlib import Path
from typing import Any

_LIB = Path(__file__).resolve().parent / "lib"


def register(ctx: Any) -> None:  # noqa: ANN401  Hermes's own
    """Make the package importable and register the plugin. Hermes calls this function."""
    if _LIB.is_dir() and str(_LIB) not in sys.path:
        # At the end: Hermes's own packages come first.
        sys.path.append(str(_LIB))
    try:
        from gateway_hooks.hermes import register as register_plugin  # noqa: PLC0415  needs the path
    except ImportError as error:
        raise ImportError(
            f"The package hermes-mcp-auth-remote is not in {_LIB}. In a clone of hermes_mcp_auth_remote, "
            f"run: {sys.executable} -m pip install --target {_LIB} '.[hermes]'"
        ) from error
    register_plugin(ctx)

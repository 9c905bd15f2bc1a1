"""Fuzz the fast path of the command `token`: the fast path returns a valid token or None.

The first line of an input is the binding file; the other lines are the tokens file.
"""

import os
import tempfile
from pathlib import Path

from fuzz.inputs import NOW, check
from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token

BINDING = b'{"server": "demo", "login_needed": null}'
SEEDS = (
    BINDING + b'\n{"access_token": "t", "expires_at": 1800003600}',
    BINDING + b'\n{"access_token": "\\u00e4\\n", "expires_at": 1e999}',
    b'{"server": "demo", "login_needed": "over"}\n[]',
)
_HOME = tempfile.TemporaryDirectory(prefix="hermes-fuzz-")
_FOLDER = Path(_HOME.name) / "mcp-tokens"
_FOLDER.mkdir(mode=0o700)


def fuzz_one_input(data: bytes) -> None:
    """Write both files and read a token."""
    binding, _, tokens = data.partition(b"\n")
    for name, content in (("demo.binding.json", binding), ("demo.json", tokens)):
        descriptor = os.open(_FOLDER / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    token = read_valid_token(_HOME.name, "demo", NOW)
    check(token is None or (token.isascii() and token.isprintable() and token), "an invalid token")

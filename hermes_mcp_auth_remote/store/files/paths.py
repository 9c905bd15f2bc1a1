"""Names of the files of a server and of the folders of an owner below `HERMES_HOME/mcp-tokens/`."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_to_bytes

TOKENS, CLIENT, METADATA, BINDING = ".json", ".client.json", ".meta.json", ".binding.json"
# The private key that DPoP tokens are bound to. Hermes has no such file.
PROOF_KEY = ".dpop.json"
# Hermes's copy of a client that the server rejected; it contains the client secret.
CLIENT_BACKUP = ".client.json.bak"
# An empty file of later versions of Hermes: the server has rejected a client ID metadata document.
CIMD_DISABLED = ".cimd-off"
# Why the last refresh failed. Not ".json", so that Hermes and older versions of this program ignore it.
REFRESH_FAILURE = ".refresh-failure"
# The server has refused tokens that were just refreshed. Hermes and older versions ignore this file too.
TOKEN_REFUSAL = ".token-refusal"  # noqa: S105  a file name
LOCK = ".json.refresh.lock"
# A hidden file that exists while a login is being stored (`login_commit`). It has the suffix of a temporary
# file, so that the logout of an older version removes it too.
COMMIT_RECORD = ".pending.tmp"
OWNERS_FOLDER = "owners"

_UNESCAPED_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_ESCAPED = [chr(byte) if byte in _UNESCAPED_BYTES else f"%{byte:02x}" for byte in range(256)]


@lru_cache(maxsize=1024)
def owner_folder(owner: str) -> str:
    """Return the folder name of an owner, unique also on a file system that ignores case."""
    data = owner.encode("utf-8", "surrogatepass")
    return "".join(map(_ESCAPED.__getitem__, data)) or "%"


def folder_name_of(owner: str | None) -> str:
    """Return the folder name of an owner; "" for the operator, whose files are beside the owners' folder."""
    return "" if owner is None else owner_folder(owner)


def owner_from_folder(folder: str) -> str | None:
    """Return the owner that a folder name stands for, None if it stands for none."""
    try:
        owner = "" if folder == "%" else unquote_to_bytes(folder).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return owner if owner_folder(owner) == folder else None

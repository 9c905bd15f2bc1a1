"""How the files of a server and the folders of an owner are called below `HERMES_HOME/mcp-tokens/`."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

TOKENS, CLIENT, METADATA, BINDING = ".json", ".client.json", ".meta.json", ".binding.json"
# The private key that DPoP tokens are bound to; Hermes has none.
PROOF_KEY = ".dpop.json"
# Hermes keeps a copy of a client that was refused; it holds the client secret.
CLIENT_BACKUP = ".client.json.bak"
# Later versions of Hermes leave it, empty, where the provider refused a client ID metadata document.
CIMD_DISABLED = ".cimd-off"
# Why the last refresh failed. Not ".json": neither Hermes nor an older version of ours looks at it.
REFRESH_FAILURE = ".refresh-failure"
LOCK = ".json.refresh.lock"
# A hidden file, only while a login is stored (`commit`). Its name ends like a temporary file's, so that the
# logout of a version that does not know it removes it, too.
COMMIT_RECORD = ".pending.tmp"
OWNERS_FOLDER = "owners"

_UNESCAPED_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


def owner_folder(owner: str) -> str:
    """Turn an owner into a folder's name, each into another one, also where case does not count."""
    data = owner.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in _UNESCAPED_BYTES else f"%{byte:02x}" for byte in data) or "%"


def owner_from_folder(folder: str) -> str | None:
    """Return the owner of a folder by its name, None for a folder that is nobody's."""
    try:
        owner = "" if folder == "%" else unquote_to_bytes(folder).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return owner if owner_folder(owner) == folder else None

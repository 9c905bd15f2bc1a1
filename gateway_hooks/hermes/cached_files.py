"""Files that Hermes has cached of a message: what they say, and how they go again.

Hermes puts short texts into the message itself and names the file to the model, which can read it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.code_detection import MAX_SEARCHED_CHARS, may_contain_code
from gateway_hooks.hermes import internals as hermes
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS

# Of so many files of one message; chats take ten at most.
MAX_FILES = 20
# All files of a message together are searched as one message is. Of each, at least so much: a pasted address.
MIN_FILE_BYTES = MAX_PASTE_CHARS
_MEDIA_TYPE_PREFIXES = ("image/", "audio/", "video/")

log = logging.getLogger(__name__)


def cached_texts_with_codes(hermes_event: Any) -> dict[Path, str]:  # noqa: ANN401  Hermes's own
    """Return the files of an event whose text may hold a code, with that text."""
    found, left = dict[Path, str](), MAX_SEARCHED_CHARS
    for path in _cached_paths(hermes_event):
        text = _read_text(path, max(left, MIN_FILE_BYTES))
        left -= len(text)
        if text and may_contain_code(text):
            found[path] = text
    return found


def delete_cached_file(path: Path) -> bool:
    """Delete a file of Hermes's cache; False if it stays, or lies elsewhere."""
    folder = hermes.import_attribute(
        "gateway.platforms.base", "get_document_cache_dir", "its cached files stay"
    )
    try:
        if folder is None or path.parent.resolve() != Path(folder()).resolve():
            return False
        path.unlink(missing_ok=True)
    except OSError as trouble:
        log.warning("A cached file with a code in it could not be deleted: %s.", trouble.strerror)
        return False
    return True


def _cached_paths(hermes_event: Any) -> Iterator[Path]:  # noqa: ANN401
    paths: list[Any] = list(getattr(hermes_event, "media_urls", None) or ())[:MAX_FILES]
    kinds = list(getattr(hermes_event, "media_types", None) or ())
    for number, path in enumerate(paths):
        kind = str(kinds[number]) if number < len(kinds) else ""
        # Hermes leaves the address of a file that it could not load.
        if isinstance(path, str) and path.startswith("/") and not kind.startswith(_MEDIA_TYPE_PREFIXES):
            yield Path(path)


def _read_text(path: Path, max_bytes: int) -> str:
    """Return the beginning of a regular file as text, whatever its encoding; "" if it cannot be read."""
    with contextlib.suppress(OSError):
        # A pipe or a device would never end.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return ""
            content = file.read(max_bytes)
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return content.decode("utf-16", "ignore")
        return content.decode("utf-8", "ignore")
    return ""

"""Read and delete the files of a message that Hermes has cached.

Hermes copies short texts into the message and tells the model the file's name, so the model can read it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.code_detection import MAX_SEARCHED_CHARS, may_contain_code
from gateway_hooks.hermes import internals as hermes
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS

# The number of files of one message that are searched. Chats accept at most ten files in a message.
MAX_FILES = 20
# The files of a message share the limit MAX_SEARCHED_CHARS. At least this much of each file is searched.
MIN_FILE_BYTES = MAX_PASTE_CHARS
_MEDIA_TYPE_PREFIXES = ("image/", "audio/", "video/")

log = logging.getLogger(__name__)


def has_cached_files(hermes_event: Any) -> bool:  # noqa: ANN401  Hermes's own
    """Return whether an event has files whose text must be searched. Reads no file."""
    return next(_cached_paths(hermes_event), None) is not None


def cached_texts_with_codes(hermes_event: Any) -> dict[Path, str]:  # noqa: ANN401  Hermes's own
    """Return each file of an event whose text may contain a code, and that text."""
    texts, remaining_chars = dict[Path, str](), MAX_SEARCHED_CHARS
    for path in _cached_paths(hermes_event):
        text = _read_text(path, max(remaining_chars, MIN_FILE_BYTES))
        remaining_chars -= len(text)
        if text and may_contain_code(text):
            texts[path] = text
    return texts


def delete_cached_files(paths: Iterable[Path]) -> None:
    """Delete files of Hermes's cache."""
    for path in paths:
        delete_cached_file(path)


def delete_cached_file(path: Path) -> bool:
    """Delete a file of Hermes's cache. Return False if the file still exists or lies outside the cache."""
    try:
        folder = hermes.document_cache_dir()
        if folder is None or path.parent.resolve() != folder.resolve():
            return False
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("A cached file with a code in it could not be deleted: %s.", error.strerror)
        return False
    return True


def _cached_paths(hermes_event: Any) -> Iterator[Path]:  # noqa: ANN401
    paths: list[Any] = list(getattr(hermes_event, "media_urls", None) or ())[:MAX_FILES]
    media_types = list(getattr(hermes_event, "media_types", None) or ())
    for number, path in enumerate(paths):
        media_type = str(media_types[number]) if number < len(media_types) else ""
        # Instead of a path, Hermes gives the URL of a file that it could not load.
        if isinstance(path, str) and path.startswith("/") and not media_type.startswith(_MEDIA_TYPE_PREFIXES):
            yield Path(path)


def _read_text(path: Path, max_bytes: int) -> str:
    """Return the beginning of a regular file as text (UTF-8 or UTF-16); "" if it cannot be read."""
    with contextlib.suppress(OSError):
        # O_NONBLOCK: opening a pipe would block.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return ""
            content = file.read(max_bytes)
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return content.decode("utf-16", "ignore")
        return content.decode("utf-8", "ignore")
    return ""

"""Find a server's name in any Unicode normal form, and refuse a name that is too long for a file name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.hermes_home import file_stem

# File systems limit a name to 255 bytes. The longest file name adds 42 bytes to the stem: the name of a
# temporary file for the record of a half-stored login.
MAX_STEM_BYTES = 200
_MAX_SHOWN_CHARS = 40
_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")


def check_server_name(name: str) -> None:
    """Raise ConfigError if the names of a server's files would be longer than file systems allow."""
    if len(file_stem(name).encode("utf-8", "surrogatepass")) > MAX_STEM_BYTES:
        raise ConfigError(
            f"The name {name[:_MAX_SHOWN_CHARS]}… is too long: the names of its files would have more than "
            "255 bytes.",
            f"Use a name of at most {MAX_STEM_BYTES} bytes in UTF-8; a letter outside of ASCII has 2 to 4.",
        )


def spellings(name: str) -> Iterator[str]:
    """Yield a name as it is, then in each other Unicode normal form."""
    if name.isascii():
        yield name
    else:
        yield from dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in _FORMS)))


def find_spelling(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that is this name in any Unicode normal form, or None.

    The order of preference is: an equal candidate, a candidate with the same canonical form (NFC), and one
    with the same compatibility form (NFKC). If two candidates have the same form, the result is None.
    """
    names = list(candidates)
    if name in names:
        return name
    if name.isascii() and all(map(str.isascii, names)):
        return None
    for form in ("NFC", "NFKC"):
        normalized_name = unicodedata.normalize(form, name)
        matches = [
            candidate for candidate in names if unicodedata.normalize(form, candidate) == normalized_name
        ]
        if matches:
            return matches[0] if len(matches) == 1 else None
    return None

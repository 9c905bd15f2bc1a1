"""What phones, chats and terminals do to an address on its way to us, undone. Text in, candidates out.

Nothing is trusted here: `redirect` holds every candidate against the login that waits.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from urllib.parse import unquote

# A redirect URL with a signed code is 2 to 5 thousand characters long; beyond this it is something else.
MAX_PASTE_CHARS = 16_384
# A person may paste the address that was opened as well as the one where it ended; more is not a person.
MAX_ADDRESSES = 8
# A narrower line was not broken by a terminal or a chat window.
MIN_WRAPPED_CHARS = 20

# Colours, and the marks that a terminal puts around a paste.
_ESCAPE_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# Zero-width and directional characters and byte order marks come with copying from chats.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
_OPENING = "<([{\"'`*_~|“‘"
_CLOSING = {"<": ">", "(": ")", "[": "]", "{": "}", "“": "”", "‘": "’"}
# Not what a code itself may begin or end with.
_CODE_DELIMITERS = "<>()[]{}\"'`“”‘’"
# No browser leaves these unescaped in an address.
_ADDRESS_CHARS = re.compile(r"[^\s<>\"`“”‘’]*")
_PUNCTUATION = ".,;:!?'*)]}|"
# An `iss` inside a query is an address too, but "https://http://" is a phone's.
_NOT_INSIDE_ADDRESS = r"(?<![A-Za-z0-9=%&?.+/@-])"
_SCHEME = r"(?i:https?(?:://|%3a%2f%2f))"


def clean_text(text: str) -> str:
    """Return the text without what is invisible, and with plain ampersands."""
    text = _INVISIBLE.sub("", _ESCAPE_SEQUENCES.sub("", text))
    return _AMPERSAND.sub("&", text).strip()


def extract_candidates(text: str, netloc: str) -> Iterator[str]:
    """Yield what the person may have meant, likeliest first: addresses, or queries of one, each once.

    `netloc` is the redirect URI's host and port, for phones that hide the scheme. Takes at most
    MAX_PASTE_CHARS characters; the work is linear in them.
    """
    text = clean_text(text)
    seen: set[str] = set()
    for start in _find_starts(text, netloc):
        for candidate in _iter_candidates_at(text, start):
            if candidate not in seen:
                seen.add(candidate)
                yield candidate


def extract_bare_code(text: str) -> str:
    """Return a code that was pasted alone, without what a chat or a person put around it."""
    text = clean_text(text).strip(_CODE_DELIMITERS).strip()
    # Copied out of an address bar, it is still escaped.
    return unquote(text) if re.search(r"%[0-9A-Fa-f]{2}", text) else text


def _find_starts(text: str, netloc: str) -> list[int]:
    address = rf"{_NOT_INSIDE_ADDRESS}(?:{_SCHEME}|(?i:{re.escape(netloc)}/))|(?<=://){_SCHEME}"
    found = (match.start() for match in re.finditer(address, text))
    first = len(text) - len(text.lstrip(_OPENING))
    return list(dict.fromkeys((first, *itertools.islice(found, MAX_ADDRESSES))))


def _iter_candidates_at(text: str, start: int) -> Iterator[str]:
    before, tail = text[:start].rstrip(_OPENING), text[start:]
    closing = "".join(_CLOSING.get(c, c) for c in reversed(text[len(before) : start]))
    if re.match(r"(?i)https?%3a%2f%2f", tail):
        tail = unquote(tail)
    readings = [
        reading
        for whole in (_rejoin_lines(tail), tail, "".join(tail.split()))
        for reading in _iter_endings(whole, closing, has_prose=bool(before.strip()))
    ]
    yield from readings
    yield from (unquote(reading) for reading in readings if "%3d" in reading.lower())


def _rejoin_lines(text: str) -> str:
    """Join lines that were broken at the edge of a window, as long as they look like that.

    A single word on the line below an address looks like that, too; it only counts where the code is last.
    """
    lines = [line.strip() for line in text.splitlines()]
    joined = lines[:1]
    for before, line in itertools.pairwise(lines):
        if len(before) < MIN_WRAPPED_CHARS or " " in before or not re.fullmatch(r"[!-~]+", line):
            break
        joined.append(line)
    return "".join(joined) + " " + " ".join(lines[len(joined) :])


def _iter_endings(text: str, closing: str, *, has_prose: bool) -> Iterator[str]:
    """Yield where the address at the text's start may end.

    A code may end in punctuation; a sentence does, so where there is one, the address ends before that.
    """
    word, rest = _split_address(text)
    inner, outer = _split_address(closing)
    is_closed = closing != "" and word.endswith(inner) and rest.startswith(outer)
    if is_closed:
        word = word.removesuffix(inner)
    trimmed = word.rstrip(_PUNCTUATION)
    in_a_sentence = not is_closed and (has_prose or re.search(r"\w", rest))
    yield from (trimmed, word) if in_a_sentence else (word, trimmed)


def _split_address(text: str) -> tuple[str, str]:
    found = _ADDRESS_CHARS.match(text)
    end = found.end() if found else 0
    return text[:end], text[end:]

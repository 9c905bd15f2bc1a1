"""Extract redirect URLs from pasted text that phones, chats and terminals have changed.

This module only finds candidates. `redirect` checks each candidate against the waiting login.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from urllib.parse import unquote

# A redirect URL with a signed code has 2000 to 5000 characters.
MAX_PASTE_CHARS = 16_384
# A user may paste the authorization URL as well as the redirect URL.
MAX_ADDRESSES = 8
# Terminals and chat windows do not wrap at a smaller width.
MIN_WRAPPED_CHARS = 20

# Colours, and the markers that a terminal puts around a paste.
_ESCAPE_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# Text copied from chats contains zero-width and directional characters and byte order marks.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
_OPENING = "<([{\"'`*_~|“‘"
_CLOSING = {"<": ">", "(": ")", "[": "]", "{": "}", "“": "”", "‘": "’"}
# A code does not begin or end with these.
_CODE_DELIMITERS = "<>()[]{}\"'`“”‘’"
# Every browser escapes the excluded characters in an address.
_ADDRESS_CHARS = re.compile(r"[^\s<>\"`“”‘’]*")
_PUNCTUATION = ".,;:!?'*)]}|"
# Skip the address in a query's `iss`, but accept "https://http://", which phones produce.
_NOT_INSIDE_ADDRESS = r"(?<![A-Za-z0-9=%&?.+/@-])"
_SCHEME = r"(?i:https?(?:://|%3a%2f%2f))"


def clean_text(text: str) -> str:
    """Remove invisible characters and replace HTML-escaped ampersands."""
    text = _INVISIBLE.sub("", _ESCAPE_SEQUENCES.sub("", text))
    return _AMPERSAND.sub("&", text).strip()


def extract_candidates(text: str, netloc: str) -> Iterator[str]:
    """Yield possible redirect URLs or their queries, the likeliest first, without duplicates.

    `netloc` is the redirect URI's host and port, because phones hide the scheme. Pass at most MAX_PASTE_CHARS
    characters; the work is linear in the length.
    """
    text = clean_text(text)
    seen: set[str] = set()
    for start in _find_starts(text, netloc):
        for candidate in _iter_candidates_at(text, start):
            if candidate not in seen:
                seen.add(candidate)
                yield candidate


def extract_bare_code(text: str) -> str:
    """Return a code that was pasted alone, without surrounding quotation marks and brackets."""
    text = clean_text(text).strip(_CODE_DELIMITERS).strip()
    # A code from an address bar is still percent-encoded.
    return unquote(text) if re.search(r"%[0-9A-Fa-f]{2}", text) else text


def _find_starts(text: str, netloc: str) -> list[int]:
    address_pattern = rf"{_NOT_INSIDE_ADDRESS}(?:{_SCHEME}|(?i:{re.escape(netloc)}/))|(?<=://){_SCHEME}"
    match_starts = (match.start() for match in re.finditer(address_pattern, text))
    first_start = len(text) - len(text.lstrip(_OPENING))
    return list(dict.fromkeys((first_start, *itertools.islice(match_starts, MAX_ADDRESSES))))


def _iter_candidates_at(text: str, start: int) -> Iterator[str]:
    before, tail = text[:start].rstrip(_OPENING), text[start:]
    closing = "".join(_CLOSING.get(c, c) for c in reversed(text[len(before) : start]))
    if re.match(r"(?i)https?%3a%2f%2f", tail):
        tail = unquote(tail)
    readings = [
        reading
        for whole in (_rejoin_lines(tail), tail, "".join(tail.split()))
        for reading in _iter_trimmed_addresses(whole, closing, has_prose=bool(before.strip()))
    ]
    yield from readings
    yield from (unquote(reading) for reading in readings if "%3d" in reading.lower())


def _rejoin_lines(text: str) -> str:
    """Join lines that look wrapped at the edge of a window.

    A single word on the line below an address also looks wrapped. That matters only if the code comes last in
    the address.
    """
    lines = [line.strip() for line in text.splitlines()]
    joined = lines[:1]
    for before, line in itertools.pairwise(lines):
        if len(before) < MIN_WRAPPED_CHARS or " " in before or not re.fullmatch(r"[!-~]+", line):
            break
        joined.append(line)
    return "".join(joined) + " " + " ".join(lines[len(joined) :])


def _iter_trimmed_addresses(text: str, closing: str, *, has_prose: bool) -> Iterator[str]:
    """Yield the possible addresses at the start of the text: with and without trailing punctuation.

    The punctuation may belong to the code or to the sentence around the address. If there is a sentence, the
    address without the punctuation comes first.
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
    match = _ADDRESS_CHARS.match(text)
    end = match.end() if match else 0
    return text[:end], text[end:]

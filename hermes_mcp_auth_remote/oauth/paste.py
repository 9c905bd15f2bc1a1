"""Extract redirect URLs from pasted text that phones, chats and terminals have changed.

This module only finds candidates. `redirect` checks each candidate against the waiting login.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

# A redirect URL with a signed code has 2000 to 5000 characters.
MAX_PASTE_CHARS = 16_384
# A user may paste the authorization URL as well as the redirect URL.
MAX_ADDRESSES = 8
# Terminals and chat windows do not wrap at a smaller width.
MIN_WRAPPED_CHARS = 20

# Usual widths of windows. At another width, two lines may not be parts of one wrapped line.
_WINDOW_WIDTHS = frozenset({40, 60, 64, 72, 76, 78, 79, 80, 100, 120, 132})
# Terminals and chats cut a longer line or message at these lengths (MAX_CANON, Discord, Telegram). A user may
# have joined several parts of a Telegram message.
_CUT_LENGTHS = frozenset({1023, 1024, 2000, 4000, 4095, 4096, 8192, 12_288})

# Colours, keys, the markers that a terminal puts around a paste, and its responses to queries.
_ESCAPE_SEQUENCES = re.compile(
    r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[A-Za-z]|[\]P_^][^\x07\x1b\r\n]{0,200}(?:\x07|\x1b\\))"
)
# Paste markers without ESC, which a shell, an editor or a slow connection has removed.
_PASTE_MARK = re.compile(r"(?:\^\[)?\[20[01]~")
_LOST_PASTE_MARKS = re.compile(r"(20|0|)0~(.*)(?:\1)1~", re.DOTALL)
_SEQUENCE_TAIL = re.compile(r"(?:\^\[)?\[(?:[?>=]?[\d;]+[A-Za-z~]|[A-DIO])$")
# What may stand directly before an address: keys that were pressed, and a terminal's responses to queries.
_LEFTOVER = re.compile(r"[\w;?>\[\]~^$\\]{1,32}|(?:\^\[)?\]?\d+;rgba?:[0-9a-fA-F/]+\\?")
_MAX_LEFTOVER_CHARS = 40
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
# No code ends with these, because every server escapes them.
_SURE_PUNCTUATION = frozenset(",;:?")
_JUNK = re.compile(r"[|\[\]{}^\\~]")
# Skip the address in a query's `iss`, but accept "https://http://", which phones produce.
_NOT_INSIDE_ADDRESS = r"(?<![A-Za-z0-9=%&?.+/@-])"
_SCHEME = r"(?i:https?(?:://|%3a%2f%2f))"


AddressEnd = Literal["closed", "visible", "unknown"]
"""How the text shows where an address ends: by a delimiter, by the text that follows, or not at all."""


class Candidate(NamedTuple):
    """A possible redirect URL, or its query alone."""

    address: str
    end: AddressEnd


def clean_text(text: str) -> str:
    """Remove invisible characters and a terminal's leftovers, and replace HTML-escaped ampersands."""
    text = _INVISIBLE.sub("", _PASTE_MARK.sub("", _ESCAPE_SEQUENCES.sub("", text)))
    text = _SEQUENCE_TAIL.sub("", _AMPERSAND.sub("&", text).strip())
    if match := _LOST_PASTE_MARKS.fullmatch(text):
        return f"<{match[2].strip()}>"
    return text.strip()


def extract_candidates(text: str, redirect_uri: str) -> Iterator[list[Candidate]]:
    """Yield a list for each address in the text: its possible readings, the likeliest first.

    `redirect_uri` is the redirect URI of the login. With it, this finds addresses without a scheme, which
    phones hide, and an address that was pasted twice in a row. Pass at most MAX_PASTE_CHARS characters; the
    work is linear in the length.
    """
    is_cut = len(text.strip()) in _CUT_LENGTHS
    text = clean_text(text)
    yielded: set[Candidate] = set()
    own_starts = _find_own_addresses(text, redirect_uri)
    for start in _find_starts(text, redirect_uri, own_starts):
        end = next((own_start for own_start in own_starts if own_start > start), len(text))
        readings = dict.fromkeys(_iter_candidates_at(text[:end], start))
        if is_cut:
            readings = dict.fromkeys(
                it if it.end == "closed" else Candidate(it.address, "unknown") for it in readings
            )
        yield [reading for reading in readings if reading not in yielded]
        yielded.update(readings)


def extract_bare_code(text: str) -> str:
    """Return a code that was pasted alone, without surrounding quotation marks and brackets."""
    text = clean_text(text).strip(_CODE_DELIMITERS).strip()
    # A code from an address bar is still percent-encoded.
    return unquote(text) if re.search(r"%[0-9A-Fa-f]{2}", text) else text


def _find_own_addresses(text: str, redirect_uri: str) -> list[int]:
    """Return where the redirect URI of the login starts in the text."""
    parts = urlsplit(redirect_uri)
    address_pattern = re.compile(
        rf"(?i:(?:https?://)?{re.escape(parts.netloc)}){re.escape(parts.path or '/')}[?#]"
    )
    return [match.start() for match in itertools.islice(address_pattern.finditer(text), MAX_ADDRESSES)]


def _find_starts(text: str, redirect_uri: str, own_starts: list[int]) -> list[int]:
    netloc = re.escape(urlsplit(redirect_uri).netloc)
    address_pattern = rf"{_NOT_INSIDE_ADDRESS}(?:{_SCHEME}|(?i:{netloc}/))|(?<=://){_SCHEME}"
    starts = {match.start() for match in itertools.islice(re.finditer(address_pattern, text), MAX_ADDRESSES)}
    for previous, start in itertools.pairwise([-1, *own_starts]):
        word = re.split(r"\s", text[max(start - _MAX_LEFTOVER_CHARS, 0) : start])[-1]
        is_doubled = previous >= 0 and not re.search(r"\s", text[previous:start])
        if is_doubled or _LEFTOVER.fullmatch(word):
            starts.add(start)
    first_start = len(text) - len(text.lstrip(_OPENING))
    return list(dict.fromkeys((first_start, *sorted(starts)[:MAX_ADDRESSES])))


def _iter_candidates_at(text: str, start: int) -> Iterator[Candidate]:
    before, tail = text[:start].rstrip(_OPENING), text[start:]
    closing = "".join(_CLOSING.get(c, c) for c in reversed(text[len(before) : start]))
    if re.match(r"(?i)https?%3a%2f%2f", tail):
        tail = unquote(tail)
    unwrapped = _join_wrapped_lines(tail, len(before.rpartition("\n")[2]))
    likeliest = unwrapped or tail
    readings = [
        reading
        for whole in dict.fromkeys((likeliest, _rejoin_lines(tail), tail, "".join(tail.split())))
        for reading in _iter_trimmed_addresses(
            whole, closing, has_prose=bool(before.strip()), is_likely=whole == likeliest
        )
    ]
    yield from readings
    yield from (Candidate(unquote(address), end) for address, end in readings if "%3d" in address.lower())


def _join_wrapped_lines(text: str, prefix_chars: int) -> str | None:
    """Join the lines that a window has wrapped; return None if no lines are wrapped.

    All wrapped lines except the last have the same length. `prefix_chars` is the number of characters before
    the address on its line. If there are only two lines, the length must be a usual width of a window.
    """
    lines = [line.strip() for line in text.splitlines()] or [""]
    width = prefix_chars + len(lines[0])
    full_lines = 1 + sum(1 for _ in itertools.takewhile(lambda line: len(line) == width, lines[1:]))
    joined = lines[: full_lines + 1]
    is_wrapped = (
        width >= MIN_WRAPPED_CHARS
        and len(joined) > 1
        and len(joined[-1]) <= width
        and all(re.fullmatch(r"[!-~]+", line) for line in joined[1:])
        and " " not in lines[0]
        and (full_lines > 1 or width in _WINDOW_WIDTHS)
    )
    return "".join(joined) + " " + " ".join(lines[len(joined) :]) if is_wrapped else None


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


def _iter_trimmed_addresses(
    text: str, closing: str, *, has_prose: bool, is_likely: bool
) -> Iterator[Candidate]:
    """Yield the possible addresses at the start of the text: with and without trailing punctuation.

    The punctuation may belong to the code or to the sentence around the address. If there is a sentence, the
    address without the punctuation comes first.
    """
    word, rest = _split_address(text)
    inner, outer = _split_address(closing)
    is_closed = closing != "" and word.endswith(inner) and rest.startswith(outer)
    if is_closed:
        word = word.removesuffix(inner)
    if is_closed and closing.startswith(">") and "|" in word:
        # Slack writes <address|text>. If the text is another one, "|" may belong to the code.
        address, _, text_of_link = word.partition("|")
        yield Candidate(address, "closed" if text_of_link in address else "unknown")
        return
    end: AddressEnd = "closed" if is_closed else _judge_end(rest) if is_likely else "unknown"
    trimmed = word.rstrip(_PUNCTUATION)
    is_trim_certain = set(word[len(trimmed) :]) <= _SURE_PUNCTUATION
    readings = [Candidate(word, end), Candidate(trimmed, end if is_trim_certain else "unknown")]
    in_a_sentence = not is_closed and (has_prose or re.search(r"\w", rest))
    yield from reversed(readings) if in_a_sentence else readings
    before_last, separator, last = word.rpartition("&")
    if separator and (junk := _JUNK.search(last)):
        yield Candidate(f"{before_last}&{last[: junk.start()]}", "unknown")


def _judge_end(rest: str) -> AddressEnd:
    """Decide if an address ends before `rest`, or if `rest` may continue the code at its end."""
    if not rest[:1].isspace():
        return "visible"
    following = rest.split()
    if not following or not re.fullmatch(r"[!-~]*[A-Za-z0-9][!-~]*", following[0]):
        return "visible"
    # Only the last line of a wrapped code is short.
    return "visible" if len(following) > 1 and len(following[0]) < MIN_WRAPPED_CHARS else "unknown"


def _split_address(text: str) -> tuple[str, str]:
    match = _ADDRESS_CHARS.match(text)
    end = match.end() if match else 0
    return text[:end], text[end:]

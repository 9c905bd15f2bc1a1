"""Parser for `parse_mode` HTML."""

from __future__ import annotations

import re
from typing import NoReturn

from tests.parts.bot_api.markup import OpenMark, Output, bytes_before, cannot_parse
from tests.parts.bot_api.values import Entity

ENTITY_TYPES = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
    "a": "text_link",
    "code": "code",
    "pre": "pre",
    "tg-emoji": "custom_emoji",
    "blockquote": "blockquote",
}
ATTRIBUTE = re.compile(r"""\s*([^\s=>]*)\s*(?:=\s*("[^"]*"|'[^']*'|[A-Za-z0-9.-]+))?""")
NAMED_REFERENCES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
REFERENCE = re.compile(r"&(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|([a-z]+));?")
LANGUAGE_PREFIX = "language-"


def read_html(text: str) -> tuple[str, tuple[Entity, ...]]:
    """Return the text without tags, and its entities; raise ApiError."""
    output, open_marks = Output(), list[OpenMark]()
    at = 0
    while at < len(text):
        if (
            text[at] == "&"
            and (reference := REFERENCE.match(text, at))
            and (character := _decode_reference(reference))
        ):
            output.write(character)
            at = reference.end()
        elif text[at] != "<":
            output.write(text[at])
            at += 1
        elif text.startswith("</", at):
            at = _read_end_tag(text, at, output, open_marks)
        else:
            at = _read_start_tag(text, at, output, open_marks)
    if open_marks:
        raise cannot_parse(f'Can\'t find end tag corresponding to start tag "{open_marks[-1].kind}"')
    return output.result()


def _decode_reference(reference: re.Match[str]) -> str:
    hexadecimal, decimal, name = reference.groups()
    if name:
        return NAMED_REFERENCES.get(name, "")
    number = int(hexadecimal, 16) if hexadecimal else int(decimal)
    return chr(number) if 0 < number < 0x110000 else ""


def _read_start_tag(text: str, begin: int, output: Output, open_marks: list[OpenMark]) -> int:
    """Read a start tag; return the index after it."""
    offset = bytes_before(text, begin)
    name = re.match(r"[^\s>]*", text[begin + 1 :])
    tag = name[0].lower() if name else ""
    at = begin + 1 + len(tag)
    if at >= len(text):
        raise cannot_parse(f"Unclosed start tag at byte offset {offset}")
    if tag not in ENTITY_TYPES:
        raise cannot_parse(f'Unsupported start tag "{tag}" at byte offset {offset}')
    argument = ""
    while True:
        attribute = ATTRIBUTE.match(text, at)
        if attribute is None or attribute.end() >= len(text):
            raise cannot_parse(f"Unclosed start tag at byte offset {offset}")
        if attribute[1] or attribute[2]:
            argument = _read_argument(tag, attribute, offset) or argument
        at = attribute.end()
        if text[at] == ">":
            break
        if not attribute[1]:
            _refuse_attribute(tag, offset)
    if tag == "span" and argument != "tg-spoiler":
        raise cannot_parse(f'Tag "span" must have class "tg-spoiler" at byte offset {offset}')
    open_marks.append(OpenMark(tag, offset, output.size, argument))
    return at + 1


def _read_argument(tag: str, attribute: re.Match[str], offset: int) -> str:
    name, value = attribute[1].lower(), (attribute[2] or "").strip("\"'")
    if not name:
        _refuse_attribute(tag, offset)
    if attribute[2] is None and (tag, name) != ("blockquote", "expandable"):
        raise cannot_parse(
            f'Expected equal sign in declaration of an attribute of the tag "{tag}" at byte offset {offset}'
        )
    if (tag, name) in {("a", "href"), ("span", "class"), ("tg-emoji", "emoji-id")}:
        return re.sub(REFERENCE, lambda reference: _decode_reference(reference) or reference[0], value)
    if (tag, name) == ("code", "class") and value.startswith(LANGUAGE_PREFIX):
        return value.removeprefix(LANGUAGE_PREFIX)
    return "expandable" if (tag, name) == ("blockquote", "expandable") else ""


def _refuse_attribute(tag: str, offset: int) -> NoReturn:
    raise cannot_parse(f'Empty attribute name in the tag "{tag}" at byte offset {offset}')


def _read_end_tag(text: str, begin: int, output: Output, open_marks: list[OpenMark]) -> int:
    """Read an end tag; return the index after it."""
    offset = bytes_before(text, begin)
    if not open_marks:
        raise cannot_parse(f"Unexpected end tag at byte offset {offset}")
    end_tag = re.compile(r"</([^\s>]*)\s*>").match(text, begin)
    if end_tag is None:
        raise cannot_parse(f"Unclosed end tag at byte offset {offset}")
    name, opened = end_tag[1].lower(), open_marks.pop()
    if name and name != opened.kind:
        raise cannot_parse(
            f'Unmatched end tag at byte offset {offset}, expected "</{opened.kind}>", found "</{name}>"'
        )
    _close_mark(output, open_marks, opened)
    return end_tag.end()


def _close_mark(output: Output, open_marks: list[OpenMark], opened: OpenMark) -> None:
    kind = ENTITY_TYPES[opened.kind]
    if kind == "text_link":
        output.add_link(opened.start, opened.argument or output.text_from(opened.start))
    elif kind == "custom_emoji":
        output.add_entity(kind, opened.start, custom_emoji_id=opened.argument)
    elif kind == "blockquote" and opened.argument:
        output.add_entity("expandable_blockquote", opened.start)
    elif kind == "code" and open_marks and open_marks[-1].kind == "pre" and opened.argument:
        # <pre><code class="language-x"> is one entity.
        open_marks[-1].argument = opened.argument
    elif kind == "pre" and opened.argument:
        output.add_entity(kind, opened.start, language=opened.argument)
    else:
        output.add_entity(kind, opened.start)

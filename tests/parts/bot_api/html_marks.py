"""Parser for `parse_mode` HTML."""

from __future__ import annotations

import re
from typing import NoReturn

from tests.parts.bot_api.marks import Open, Output, bytes_before, cannot_parse
from tests.parts.bot_api.values import Entity

KINDS = {
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
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
REFERENCE = re.compile(r"&(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|([a-z]+));?")
LANGUAGE = "language-"


def read_html(text: str) -> tuple[str, tuple[Entity, ...]]:
    """Return the text without tags, and its entities; raise ApiError."""
    output, nested = Output(), list[Open]()
    at = 0
    while at < len(text):
        if text[at] == "&" and (reference := REFERENCE.match(text, at)) and (found := _character(reference)):
            output.write(found)
            at = reference.end()
        elif text[at] != "<":
            output.write(text[at])
            at += 1
        elif text.startswith("</", at):
            at = _end(text, at, output, nested)
        else:
            at = _start(text, at, output, nested)
    if nested:
        raise cannot_parse(f'Can\'t find end tag corresponding to start tag "{nested[-1].kind}"')
    return output.result()


def _character(reference: re.Match[str]) -> str:
    hexadecimal, decimal, name = reference.groups()
    if name:
        return NAMED.get(name, "")
    number = int(hexadecimal, 16) if hexadecimal else int(decimal)
    return chr(number) if 0 < number < 0x110000 else ""


def _start(text: str, begin: int, output: Output, nested: list[Open]) -> int:
    """Read a start tag; return the index after it."""
    offset = bytes_before(text, begin)
    name = re.match(r"[^\s>]*", text[begin + 1 :])
    tag = name[0].lower() if name else ""
    at = begin + 1 + len(tag)
    if at >= len(text):
        raise cannot_parse(f"Unclosed start tag at byte offset {offset}")
    if tag not in KINDS:
        raise cannot_parse(f'Unsupported start tag "{tag}" at byte offset {offset}')
    argument = ""
    while True:
        found = ATTRIBUTE.match(text, at)
        if found is None or found.end() >= len(text):
            raise cannot_parse(f"Unclosed start tag at byte offset {offset}")
        if found[1] or found[2]:
            argument = _argument(tag, found, offset) or argument
        at = found.end()
        if text[at] == ">":
            break
        if not found[1]:
            _wrong_attribute(tag, offset)
    if tag == "span" and argument != "tg-spoiler":
        raise cannot_parse(f'Tag "span" must have class "tg-spoiler" at byte offset {offset}')
    nested.append(Open(tag, offset, output.size, argument))
    return at + 1


def _argument(tag: str, attribute: re.Match[str], offset: int) -> str:
    name, value = attribute[1].lower(), (attribute[2] or "").strip("\"'")
    if not name:
        _wrong_attribute(tag, offset)
    if attribute[2] is None and (tag, name) != ("blockquote", "expandable"):
        raise cannot_parse(
            f'Expected equal sign in declaration of an attribute of the tag "{tag}" at byte offset {offset}'
        )
    if (tag, name) in {("a", "href"), ("span", "class"), ("tg-emoji", "emoji-id")}:
        return re.sub(REFERENCE, lambda found: _character(found) or found[0], value)
    if (tag, name) == ("code", "class") and value.startswith(LANGUAGE):
        return value.removeprefix(LANGUAGE)
    return "expandable" if (tag, name) == ("blockquote", "expandable") else ""


def _wrong_attribute(tag: str, offset: int) -> NoReturn:
    raise cannot_parse(f'Empty attribute name in the tag "{tag}" at byte offset {offset}')


def _end(text: str, begin: int, output: Output, nested: list[Open]) -> int:
    """Read an end tag; return the index after it."""
    offset = bytes_before(text, begin)
    if not nested:
        raise cannot_parse(f"Unexpected end tag at byte offset {offset}")
    found = re.compile(r"</([^\s>]*)\s*>").match(text, begin)
    if found is None:
        raise cannot_parse(f"Unclosed end tag at byte offset {offset}")
    name, opened = found[1].lower(), nested.pop()
    if name and name != opened.kind:
        raise cannot_parse(
            f'Unmatched end tag at byte offset {offset}, expected "</{opened.kind}>", found "</{name}>"'
        )
    _close(output, nested, opened)
    return found.end()


def _close(output: Output, nested: list[Open], opened: Open) -> None:
    kind = KINDS[opened.kind]
    if kind == "text_link":
        output.link(opened.at, opened.argument or output.since(opened.at))
    elif kind == "custom_emoji":
        output.close(kind, opened.at, custom_emoji_id=opened.argument)
    elif kind == "blockquote" and opened.argument:
        output.close("expandable_blockquote", opened.at)
    elif kind == "code" and nested and nested[-1].kind == "pre" and opened.argument:
        # <pre><code class="language-x"> is one entity.
        nested[-1].argument = opened.argument
    elif kind == "pre" and opened.argument:
        output.close(kind, opened.at, language=opened.argument)
    else:
        output.close(kind, opened.at)

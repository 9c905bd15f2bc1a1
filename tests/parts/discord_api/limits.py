"""Discord's limits for messages: content, embeds, attachments, mentions and flags."""

from __future__ import annotations

from typing import Any

from .components import check_components
from .form_errors import FormErrors, Path, api_error

SUPPRESS_EMBEDS, EPHEMERAL, LOADING, COMPONENTS_V2 = 1 << 2, 1 << 6, 1 << 7, 1 << 15
SILENT = 1 << 12
CONTENT_CHARACTERS = 2000
EMBED_CHARACTERS = 6000
ATTACHMENT_BYTES = 10 * 1024 * 1024


def check_message(body: dict[str, Any], path: Path = (), *, files: int = 0, edit: bool = False) -> None:
    """Raise ApiError if Discord would reject a message's body. `path` is its place in the request."""
    form = FormErrors()
    if body.get("content") is not None:
        form.check_text((*path, "content"), body["content"], 0, CONTENT_CHARACTERS)
    _check_embeds(form, (*path, "embeds"), body.get("embeds") or [])
    _check_mentions(form, (*path, "allowed_mentions"), body.get("allowed_mentions"))
    _check_attachments(form, (*path, "attachments"), body.get("attachments") or [], files, edit=edit)
    version_2 = bool(int(body.get("flags") or 0) & COMPONENTS_V2)
    check_components(form, (*path, "components"), body.get("components") or [], version_2=version_2)
    if version_2:
        for name in ("content", "embeds"):
            if body.get(name):
                text = f"The '{name}' field cannot be used when using MessageFlags.IS_COMPONENTS_V2"
                form.add((*path, name), "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2", text)
    form.raise_errors()
    if not edit and not (_has_content(body) or files):
        raise api_error(50006)


def _has_content(body: dict[str, Any]) -> bool:
    content = body.get("content")
    return bool(
        (isinstance(content, str) and content.strip()) or body.get("embeds") or body.get("components")
    )


def _check_embeds(form: FormErrors, path: Path, embeds: object) -> None:
    total = 0
    for index, embed in enumerate(form.check_list(path, embeds, 0, 10)):
        embed_path = (*path, index)
        if not isinstance(embed, dict):
            form.add(embed_path, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
            continue
        total += _check_embed(form, embed_path, embed)
    if total > EMBED_CHARACTERS:
        form.add(path, "MAX_EMBED_SIZE_EXCEEDED", f"Embed size exceeds maximum size of {EMBED_CHARACTERS}")


def _check_embed(form: FormErrors, path: Path, embed: dict[str, Any]) -> int:
    """Check one embed; return the number of characters that count towards the total."""
    counted_texts: list[Any] = [embed.get("title"), embed.get("description")]
    form.check_text((*path, "title"), embed.get("title"), 0, 256)
    form.check_text((*path, "description"), embed.get("description"), 0, 4096)
    if embed.get("url") is not None:
        form.check_url((*path, "url"), embed["url"], 2048, ("http", "https"))
    for name in ("image", "thumbnail"):
        if embed.get(name):
            form.check_url(
                (*path, name, "url"), embed[name].get("url"), 2048, ("http", "https", "attachment")
            )
    if (footer := embed.get("footer")) is not None:
        form.check_text((*path, "footer", "text"), footer.get("text"), 0, 2048, required=True)
        counted_texts.append(footer.get("text"))
    if (author := embed.get("author")) is not None:
        form.check_text((*path, "author", "name"), author.get("name"), 0, 256, required=True)
        counted_texts.append(author.get("name"))
    for index, field in enumerate(form.check_list((*path, "fields"), embed.get("fields") or [], 0, 25)):
        form.check_text((*path, "fields", index, "name"), field.get("name"), 0, 256, required=True)
        form.check_text((*path, "fields", index, "value"), field.get("value"), 0, 1024, required=True)
        counted_texts += [field.get("name"), field.get("value")]
    colour = embed.get("color")
    if colour is not None and not (isinstance(colour, int) and 0 <= colour <= 0xFFFFFF):
        form.add((*path, "color"), "NUMBER_TYPE_MAX", "int value should be less than or equal to 16777215.")
    is_visible = any(counted_texts) or embed.get("image") or embed.get("thumbnail")
    if not is_visible:
        form.add((*path, "description"), "BASE_TYPE_REQUIRED", "This field is required")
    return sum(len(text) for text in counted_texts if isinstance(text, str))


def _check_mentions(form: FormErrors, path: Path, allowed: object) -> None:
    if allowed is None:
        return
    if not isinstance(allowed, dict):
        form.add(path, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
        return
    parse = form.check_list((*path, "parse"), allowed.get("parse") or [], 0, 3)
    for index, kind in enumerate(parse):
        form.check_choice((*path, "parse", index), kind, ("users", "roles", "everyone"))
    for kind in ("users", "roles"):
        listed_ids = form.check_list((*path, kind), allowed.get(kind) or [], 0, 100)
        if listed_ids and kind in parse:
            text = f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.'
            form.add(path, "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", text)


def _check_attachments(form: FormErrors, path: Path, attachments: object, files: int, *, edit: bool) -> None:
    for index, attachment in enumerate(form.check_list(path, attachments, 0, 10)):
        has_id = isinstance(attachment, dict) and str(attachment.get("id", "")).isdigit()
        if not has_id or (not edit and int(attachment["id"]) >= files):
            form.add((*path, index, "id"), "ATTACHMENT_NOT_FOUND", "The attachment is not in this request.")
        elif attachment.get("description") is not None:
            form.check_text((*path, index, "description"), attachment["description"], 0, 1024)

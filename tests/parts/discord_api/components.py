"""Checks of message components and modals: rows, buttons, menus, labels, text inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .form import Form, Path

ROW, BUTTON, STRING_MENU, TEXT_INPUT = 1, 2, 3, 4
MENUS = (3, 5, 6, 7, 8)
SECTION, TEXT_DISPLAY, SEPARATOR, CONTAINER, LABEL = 9, 10, 14, 17, 18
LINK, PREMIUM = 5, 6
BUTTON_SCHEMES = ("http", "https", "discord")


def walk(components: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield every component, a parent before its children."""
    for component in components:
        yield component
        yield from walk(component.get("components") or [])
        yield from walk([component[name] for name in ("component", "accessory") if component.get(name)])


def numbered(components: list[Any]) -> list[Any]:
    """Assign an id, in place, to every component that was sent without one, as Discord does."""
    for number, component in enumerate(walk(components), 1):
        component.setdefault("id", number)
    return components


def check_components(form: Form, path: Path, components: object, *, version_2: bool) -> None:
    """Check a message's components: five rows, or forty components if `version_2` is set."""
    custom_ids: set[str] = set()
    if version_2:
        listed = form.items(path, components, 0, 40)
        if len(list(walk(listed))) > 40:
            form.add(path, "BASE_TYPE_MAX_LENGTH", "Must be 40 or fewer in length.")
        for index, component in enumerate(listed):
            _check_newer(form, (*path, index), component, custom_ids)
        return
    for index, row in enumerate(form.items(path, components, 0, 5)):
        if form.choice((*path, index, "type"), row.get("type"), (ROW,)):
            _check_row(form, (*path, index, "components"), row.get("components"), custom_ids)


def _check_newer(form: Form, here: Path, component: dict[str, Any], custom_ids: set[str]) -> None:
    kind = component.get("type")
    if not form.choice((*here, "type"), kind, (ROW, SECTION, TEXT_DISPLAY, 12, 13, SEPARATOR, CONTAINER)):
        return
    if kind == ROW:
        _check_row(form, (*here, "components"), component.get("components"), custom_ids)
    elif kind == TEXT_DISPLAY:
        form.text((*here, "content"), component.get("content"), 1, 4000, required=True)
    elif kind in {SECTION, CONTAINER}:
        inner = form.items(
            (*here, "components"), component.get("components"), 1, 3 if kind == SECTION else 40
        )
        for index, child in enumerate(inner):
            _check_newer(form, (*here, "components", index), child, custom_ids)
        accessory = component.get("accessory")
        if accessory is not None and accessory.get("type") == BUTTON:
            _check_button(form, (*here, "accessory"), accessory, custom_ids)


def _check_row(form: Form, path: Path, components: object, custom_ids: set[str]) -> None:
    inner = form.items(path, components, 1, 5)
    for index, component in enumerate(inner):
        here = (*path, index)
        if not form.choice((*here, "type"), component.get("type"), (BUTTON, *MENUS)):
            continue
        if component["type"] == BUTTON:
            _check_button(form, here, component, custom_ids)
        else:
            _check_menu(form, here, component, custom_ids)
            if len(inner) > 1:
                text = "The specified component exceeds the maximum width"
                form.add(here, "COMPONENT_LAYOUT_WIDTH_EXCEEDED", text)


def _check_custom_id(form: Form, here: Path, component: dict[str, Any], custom_ids: set[str]) -> None:
    custom_id = component.get("custom_id")
    if not form.text((*here, "custom_id"), custom_id, 1, 100, required=True) or not isinstance(
        custom_id, str
    ):
        return
    if custom_id in custom_ids:
        text = "Component custom id cannot be duplicated"
        form.add((*here, "custom_id"), "COMPONENT_CUSTOM_ID_DUPLICATED", text)
    custom_ids.add(custom_id)


def _check_button(form: Form, here: Path, button: dict[str, Any], custom_ids: set[str]) -> None:
    form.text((*here, "label"), button.get("label"), 0, 80)
    if not button.get("label") and not button.get("emoji"):
        form.add(here, "BUTTON_COMPONENT_LABEL_REQUIRED", "A label or an emoji is required")
    if not form.choice((*here, "style"), button.get("style"), (1, 2, 3, 4, LINK, PREMIUM)):
        return
    if button["style"] != LINK:
        _check_custom_id(form, here, button, custom_ids)
        if button.get("url") is not None:
            text = "A url can only be specified on a link button"
            form.add((*here, "url"), "BUTTON_COMPONENT_INVALID_URL", text)
        return
    form.url((*here, "url"), button.get("url"), 512, BUTTON_SCHEMES)
    if button.get("custom_id") is not None:
        text = "A custom id and url cannot both be specified"
        form.add((*here, "custom_id"), "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE", text)


def _check_menu(form: Form, here: Path, menu: dict[str, Any], custom_ids: set[str]) -> None:
    _check_custom_id(form, here, menu, custom_ids)
    form.text((*here, "placeholder"), menu.get("placeholder"), 0, 150)
    if menu.get("type") != STRING_MENU:
        return
    values: set[str] = set()
    for index, option in enumerate(form.items((*here, "options"), menu.get("options"), 1, 25)):
        place = (*here, "options", index)
        form.text((*place, "label"), option.get("label"), 1, 100, required=True)
        form.text((*place, "description"), option.get("description"), 0, 100)
        if form.text((*place, "value"), option.get("value"), 1, 100, required=True):
            if option["value"] in values:
                text = "The specified option value is already used"
                form.add((*place, "value"), "SELECT_COMPONENT_OPTION_VALUE_DUPLICATED", text)
            values.add(option["value"])


def check_modal(modal: dict[str, Any]) -> None:
    """Check a modal: a title, a custom id, and one to five components. Raises ApiError."""
    form, path = Form(), ("data",)
    form.text((*path, "title"), modal.get("title"), 1, 45, required=True)
    form.text((*path, "custom_id"), modal.get("custom_id"), 1, 100, required=True)
    custom_ids: set[str] = set()
    inner = form.items((*path, "components"), modal.get("components"), 1, 5)
    for index, component in enumerate(inner):
        here = (*path, "components", index)
        if not form.choice((*here, "type"), component.get("type"), (ROW, TEXT_DISPLAY, LABEL)):
            continue
        if component["type"] == TEXT_DISPLAY:
            form.text((*here, "content"), component.get("content"), 1, 4000, required=True)
        elif component["type"] == ROW:
            for place, held in enumerate(
                form.items((*here, "components"), component.get("components"), 1, 1)
            ):
                if form.choice((*here, "components", place, "type"), held.get("type"), (TEXT_INPUT,)):
                    _check_input(form, (*here, "components", place), held, custom_ids, labelled=True)
        else:
            _check_label(form, here, component, custom_ids)
    form.check()


def _check_label(form: Form, here: Path, label: dict[str, Any], custom_ids: set[str]) -> None:
    form.text((*here, "label"), label.get("label"), 1, 45, required=True)
    form.text((*here, "description"), label.get("description"), 0, 100)
    held = label.get("component") or {}
    if not form.choice((*here, "component", "type"), held.get("type"), (TEXT_INPUT, *MENUS, 19, 21, 22, 23)):
        return
    if held["type"] == TEXT_INPUT:
        _check_input(form, (*here, "component"), held, custom_ids, labelled=False)
    elif held["type"] in MENUS:
        _check_menu(form, (*here, "component"), held, custom_ids)
    else:
        _check_custom_id(form, (*here, "component"), held, custom_ids)


def _check_input(
    form: Form, here: Path, field: dict[str, Any], custom_ids: set[str], *, labelled: bool
) -> None:
    _check_custom_id(form, here, field, custom_ids)
    form.choice((*here, "style"), field.get("style"), (1, 2))
    if labelled:
        form.text((*here, "label"), field.get("label"), 1, 45, required=True)
    elif field.get("label") is not None:
        text = "A text input in a label has no label of its own"
        form.add((*here, "label"), "TEXT_INPUT_LABEL_NOT_ALLOWED", text)
    form.text((*here, "placeholder"), field.get("placeholder"), 0, 100)
    form.text((*here, "value"), field.get("value"), 0, 4000)
    for name, low in (("min_length", 0), ("max_length", 1)):
        value = field.get(name)
        if value is not None and not (isinstance(value, int) and low <= value <= 4000):
            text = f"int value should be between {low} and 4000."
            form.add((*here, name), "NUMBER_TYPE_RANGE", text)

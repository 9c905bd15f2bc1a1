"""Checks of message components and modals: rows, buttons, menus, labels, text inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .form_errors import FormErrors, Path

ROW, BUTTON, STRING_MENU, TEXT_INPUT = 1, 2, 3, 4
MENUS = (3, 5, 6, 7, 8)
SECTION, TEXT_DISPLAY, SEPARATOR, CONTAINER, LABEL = 9, 10, 14, 17, 18
LINK, PREMIUM = 5, 6
BUTTON_SCHEMES = ("http", "https", "discord")


def walk_components(components: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield every component, a parent before its children."""
    for component in components:
        yield component
        yield from walk_components(component.get("components") or [])
        yield from walk_components(
            [component[name] for name in ("component", "accessory") if component.get(name)]
        )


def assign_ids(components: list[Any]) -> list[Any]:
    """Assign an id, in place, to every component that was sent without one, as Discord does."""
    for number, component in enumerate(walk_components(components), 1):
        component.setdefault("id", number)
    return components


def check_components(form: FormErrors, path: Path, components: object, *, version_2: bool) -> None:
    """Check a message's components: five rows, or forty components if `version_2` is set."""
    custom_ids: set[str] = set()
    if version_2:
        listed = form.check_list(path, components, 0, 40)
        if len(list(walk_components(listed))) > 40:
            form.add(path, "BASE_TYPE_MAX_LENGTH", "Must be 40 or fewer in length.")
        for index, component in enumerate(listed):
            _check_component(form, (*path, index), component, custom_ids)
        return
    for index, row in enumerate(form.check_list(path, components, 0, 5)):
        if form.check_choice((*path, index, "type"), row.get("type"), (ROW,)):
            _check_row(form, (*path, index, "components"), row.get("components"), custom_ids)


def _check_component(form: FormErrors, path: Path, component: dict[str, Any], custom_ids: set[str]) -> None:
    kind = component.get("type")
    if not form.check_choice(
        (*path, "type"), kind, (ROW, SECTION, TEXT_DISPLAY, 12, 13, SEPARATOR, CONTAINER)
    ):
        return
    if kind == ROW:
        _check_row(form, (*path, "components"), component.get("components"), custom_ids)
    elif kind == TEXT_DISPLAY:
        form.check_text((*path, "content"), component.get("content"), 1, 4000, required=True)
    elif kind in {SECTION, CONTAINER}:
        inner = form.check_list(
            (*path, "components"), component.get("components"), 1, 3 if kind == SECTION else 40
        )
        for index, child in enumerate(inner):
            _check_component(form, (*path, "components", index), child, custom_ids)
        accessory = component.get("accessory")
        if accessory is not None and accessory.get("type") == BUTTON:
            _check_button(form, (*path, "accessory"), accessory, custom_ids)


def _check_row(form: FormErrors, path: Path, components: object, custom_ids: set[str]) -> None:
    inner = form.check_list(path, components, 1, 5)
    for index, component in enumerate(inner):
        component_path = (*path, index)
        if not form.check_choice((*component_path, "type"), component.get("type"), (BUTTON, *MENUS)):
            continue
        if component["type"] == BUTTON:
            _check_button(form, component_path, component, custom_ids)
        else:
            _check_menu(form, component_path, component, custom_ids)
            if len(inner) > 1:
                text = "The specified component exceeds the maximum width"
                form.add(component_path, "COMPONENT_LAYOUT_WIDTH_EXCEEDED", text)


def _check_custom_id(form: FormErrors, path: Path, component: dict[str, Any], custom_ids: set[str]) -> None:
    custom_id = component.get("custom_id")
    if not form.check_text((*path, "custom_id"), custom_id, 1, 100, required=True) or not isinstance(
        custom_id, str
    ):
        return
    if custom_id in custom_ids:
        text = "Component custom id cannot be duplicated"
        form.add((*path, "custom_id"), "COMPONENT_CUSTOM_ID_DUPLICATED", text)
    custom_ids.add(custom_id)


def _check_button(form: FormErrors, path: Path, button: dict[str, Any], custom_ids: set[str]) -> None:
    form.check_text((*path, "label"), button.get("label"), 0, 80)
    if not button.get("label") and not button.get("emoji"):
        form.add(path, "BUTTON_COMPONENT_LABEL_REQUIRED", "A label or an emoji is required")
    if not form.check_choice((*path, "style"), button.get("style"), (1, 2, 3, 4, LINK, PREMIUM)):
        return
    if button["style"] != LINK:
        _check_custom_id(form, path, button, custom_ids)
        if button.get("url") is not None:
            text = "A url can only be specified on a link button"
            form.add((*path, "url"), "BUTTON_COMPONENT_INVALID_URL", text)
        return
    form.check_url((*path, "url"), button.get("url"), 512, BUTTON_SCHEMES)
    if button.get("custom_id") is not None:
        text = "A custom id and url cannot both be specified"
        form.add((*path, "custom_id"), "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE", text)


def _check_menu(form: FormErrors, path: Path, menu: dict[str, Any], custom_ids: set[str]) -> None:
    _check_custom_id(form, path, menu, custom_ids)
    form.check_text((*path, "placeholder"), menu.get("placeholder"), 0, 150)
    if menu.get("type") != STRING_MENU:
        return
    values: set[str] = set()
    for index, option in enumerate(form.check_list((*path, "options"), menu.get("options"), 1, 25)):
        option_path = (*path, "options", index)
        form.check_text((*option_path, "label"), option.get("label"), 1, 100, required=True)
        form.check_text((*option_path, "description"), option.get("description"), 0, 100)
        if form.check_text((*option_path, "value"), option.get("value"), 1, 100, required=True):
            if option["value"] in values:
                text = "The specified option value is already used"
                form.add((*option_path, "value"), "SELECT_COMPONENT_OPTION_VALUE_DUPLICATED", text)
            values.add(option["value"])


def check_modal(modal: dict[str, Any]) -> None:
    """Check a modal: a title, a custom id, and one to five components. Raises ApiError."""
    form, path = FormErrors(), ("data",)
    form.check_text((*path, "title"), modal.get("title"), 1, 45, required=True)
    form.check_text((*path, "custom_id"), modal.get("custom_id"), 1, 100, required=True)
    custom_ids: set[str] = set()
    inner = form.check_list((*path, "components"), modal.get("components"), 1, 5)
    for index, component in enumerate(inner):
        component_path = (*path, "components", index)
        if not form.check_choice(
            (*component_path, "type"), component.get("type"), (ROW, TEXT_DISPLAY, LABEL)
        ):
            continue
        if component["type"] == TEXT_DISPLAY:
            form.check_text((*component_path, "content"), component.get("content"), 1, 4000, required=True)
        elif component["type"] == ROW:
            for index_in_row, text_input in enumerate(
                form.check_list((*component_path, "components"), component.get("components"), 1, 1)
            ):
                if form.check_choice(
                    (*component_path, "components", index_in_row, "type"),
                    text_input.get("type"),
                    (TEXT_INPUT,),
                ):
                    _check_input(
                        form,
                        (*component_path, "components", index_in_row),
                        text_input,
                        custom_ids,
                        has_label=True,
                    )
        else:
            _check_label(form, component_path, component, custom_ids)
    form.raise_errors()


def _check_label(form: FormErrors, path: Path, label: dict[str, Any], custom_ids: set[str]) -> None:
    form.check_text((*path, "label"), label.get("label"), 1, 45, required=True)
    form.check_text((*path, "description"), label.get("description"), 0, 100)
    component = label.get("component") or {}
    if not form.check_choice(
        (*path, "component", "type"), component.get("type"), (TEXT_INPUT, *MENUS, 19, 21, 22, 23)
    ):
        return
    if component["type"] == TEXT_INPUT:
        _check_input(form, (*path, "component"), component, custom_ids, has_label=False)
    elif component["type"] in MENUS:
        _check_menu(form, (*path, "component"), component, custom_ids)
    else:
        _check_custom_id(form, (*path, "component"), component, custom_ids)


def _check_input(
    form: FormErrors, path: Path, field: dict[str, Any], custom_ids: set[str], *, has_label: bool
) -> None:
    _check_custom_id(form, path, field, custom_ids)
    form.check_choice((*path, "style"), field.get("style"), (1, 2))
    if has_label:
        form.check_text((*path, "label"), field.get("label"), 1, 45, required=True)
    elif field.get("label") is not None:
        text = "A text input in a label has no label of its own"
        form.add((*path, "label"), "TEXT_INPUT_LABEL_NOT_ALLOWED", text)
    form.check_text((*path, "placeholder"), field.get("placeholder"), 0, 100)
    form.check_text((*path, "value"), field.get("value"), 0, 4000)
    for name, low in (("min_length", 0), ("max_length", 1)):
        value = field.get(name)
        if value is not None and not (isinstance(value, int) and low <= value <= 4000):
            text = f"int value should be between {low} and 4000."
            form.add((*path, name), "NUMBER_TYPE_RANGE", text)

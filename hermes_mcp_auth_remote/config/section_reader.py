"""Read one mapping of config.yaml by key; errors name the key, as in `mcp_servers.<name>.oauth.<key>`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar, cast

from hermes_mcp_auth_remote.errors import ConfigError, UnsafeUrl
from hermes_mcp_auth_remote.hermes_home import expand_user
from hermes_mcp_auth_remote.oauth.host_names import normalize_host_name
from hermes_mcp_auth_remote.oauth.urls import add_scheme, safe_url
from hermes_mcp_auth_remote.platforms import ChatPlatform

T = TypeVar("T")

_REFERENCE = re.compile(r"\$\{([^}]+)\}")


class Section:
    """A mapping with its key path in the file, and the variables to which its strings may refer.

    Every method returns None or an empty value if the key is missing, null or empty, and raises ConfigError
    if the value has another type. Unknown keys are ignored.
    """

    def __init__(self, key_path: str, value: object, variables: Mapping[str, str]) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key_path} must be a mapping of keys to values.")
        for key in cast("Mapping[object, object]", value):
            if not isinstance(key, str):
                raise ConfigError(f"{key_path}: a key is not text; put it in quotes.")
        self.key_path = key_path
        self.members = cast("Mapping[str, object]", value)
        self._variables = variables

    def section(self, key: str) -> Section:
        """Read a mapping; a missing one is empty."""
        value = self.members.get(key)
        return Section(f"{self.key_path}.{key}", {} if value is None else value, self._variables)

    def string(self, key: str) -> str | None:
        """Read a string and substitute `${VAR}` and `${env:VAR}`; a reference to an unset variable stays."""
        value = self.members.get(key)
        return None if value is None else self._read_string(value, key)

    def string_list(self, key: str) -> tuple[str, ...] | None:
        """Read a list of strings, or one string with space-separated items."""
        value = self.members.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            return tuple((self._read_string(value, key) or "").split())
        items = (self._read_string(item, key) for item in cast("list[object]", value))
        return tuple(item for item in items if item)

    def boolean(self, key: str) -> bool:
        """Read true or false; false if it is missing."""
        value = self.members.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._config_error(key, "must be true or false")
        return bool(value)

    def integer(self, key: str, minimum: int, maximum: int | None = None) -> int | None:
        """Read a number, which may come from a variable; drop its fraction."""
        value = self.members.get(key)
        if isinstance(value, str):
            text = self._read_string(value, key)
            value = int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else text
        if value is None:
            return None
        limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        error = self._config_error(key, f"must be a number {limits}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise error
        if not minimum <= value <= (1e9 if maximum is None else maximum):
            raise error
        return int(value)

    def choice(self, key: str, choices: Mapping[str, T]) -> T | None:
        """Read one of the keys of `choices` and return its value."""
        text = self.string(key)
        if text is None:
            return None
        if text not in choices:
            raise self._config_error(key, f"must be one of {', '.join(choices)}")
        return choices[text]

    def url(self, key: str) -> str | None:
        """Check that a URL is safe to request and to show, and return it as the operator wrote it."""
        text = self.string(key)
        if text is None:
            return None
        try:
            safe_url(text, f"value of {self.key_path}.{key}")
        except UnsafeUrl as error:
            reference = _REFERENCE.search(text)
            meant_url = add_scheme(text)
            advice = "Use an https address."
            if reference:
                advice = f"Set {_variable_name(reference)} in .env."
            elif meant_url is not None:
                advice = f"Put {meant_url.partition('://')[0]}:// before the address."
            raise ConfigError(str(error), advice) from None
        return text

    def path(self, key: str) -> str | None:
        """Read the path of a file; a leading ~ is the user's home."""
        text = self.string(key)
        return self._expand_path(text, key) if text else None

    def client_certificate(self) -> tuple[str | None, str | None]:
        """Read `client_cert` and `client_key`, or `client_cert: [certificate, key]`, as Hermes does."""
        if not isinstance(self.members.get("client_cert"), list):
            return self.path("client_cert"), self.path("client_key")
        files = self.string_list("client_cert") or ()
        if len(files) != 2 or self.members.get("client_key") is not None:
            raise self._config_error(
                "client_cert", "must be one file, or [certificate, key] with an unencrypted key"
            )
        certificate, key = (self._expand_path(file, "client_cert") for file in files)
        return certificate, key

    def _expand_path(self, text: str, key: str) -> str:
        return str(Path(expand_user(text, f"Write the path in {self.key_path}.{key} in full.")))

    def ids(self, key: str, platform: ChatPlatform) -> frozenset[str] | None:
        """Read ids of a platform's users, roles or guilds: numbers, strings, or a string of several ids."""
        value = self.members.get(key)
        if value is None:
            return None
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        return frozenset(id_ for item in items for id_ in self._split_ids(item, key, platform))

    def refuse_unknown_keys(self, known_keys: Sequence[str]) -> None:
        """Raise ConfigError for an unknown key. Use this only for sections that no other program reads."""
        for key in self.members:
            if key not in known_keys:
                similar = get_close_matches(key, known_keys, 1)
                raise ConfigError(
                    f"{self.key_path}.{key} is not known.",
                    f"Did you mean `{similar[0]}`?" if similar else f"Use one of: {', '.join(known_keys)}.",
                )

    def networks(self, key: str) -> tuple[str, ...]:
        """Read a list of IP addresses or networks."""
        texts = self.string_list(key) or ()
        try:
            return tuple(str(ip_network(text, strict=False)) for text in texts)
        except ValueError:
            raise self._config_error(key, "must list addresses or networks such as 10.0.0.0/8") from None

    def hosts(self, key: str) -> tuple[str, ...]:
        """Read a list of host names, in the form of `normalize_host_name`."""
        try:
            return tuple(dict.fromkeys(normalize_host_name(text) for text in self.string_list(key) or ()))
        except ValueError:
            # This includes UnicodeError, which IDNA raises.
            raise self._config_error(
                key, "must list host names such as auth.example.com, and no addresses"
            ) from None

    def _split_ids(self, item: object, key: str, platform: ChatPlatform) -> Iterator[str]:
        # YAML reads an unquoted `true` or `on` as a boolean, which is an `int` in Python.
        text = str(item) if isinstance(item, int) else self._read_string(item, key) or ""
        # Accept commas, which Hermes uses in the lists of users in .env.
        for part in filter(None, re.split(r"[\s,]+", text)):
            if isinstance(item, bool) or not platform.accepts_id(part):
                raise self._config_error(key, f"must list ids, which are {platform.id_rule}")
            yield part

    def _read_string(self, value: object, key: str) -> str | None:
        if not isinstance(value, str):
            raise self._config_error(key, "must be text; put it in quotes")
        text = _REFERENCE.sub(self._substitute_variable, value).strip()
        if any(c < " " or c == "\x7f" for c in text):
            # Every string becomes part of a header, a form or a URL.
            raise self._config_error(key, "contains a line break or another control character")
        return text or None

    def _substitute_variable(self, match: re.Match[str]) -> str:
        return self._variables.get(_variable_name(match)) or match[0]

    def _config_error(self, key: str, rule: str) -> ConfigError:
        return ConfigError(f"{self.key_path}.{key} {rule}.")


def _variable_name(match: re.Match[str]) -> str:
    return match[1].strip().removeprefix("env:").strip()

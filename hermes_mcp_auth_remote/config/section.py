"""One mapping of config.yaml, read member by member; each refusal names `mcp_servers.<name>.oauth.<key>`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar, cast

from hermes_mcp_auth_remote.errors import ConfigError, UnsafeUrl
from hermes_mcp_auth_remote.hermes_home import expand_user
from hermes_mcp_auth_remote.oauth.hosts import normalize_host_name
from hermes_mcp_auth_remote.oauth.urls import safe_url

T = TypeVar("T")

_REFERENCE = re.compile(r"\$\{([^}]+)\}")


class Section:
    """A mapping with its place in the file, and the variables that its texts may refer to.

    Every reader returns None (or nothing) where the key is missing, null or empty, and raises ConfigError
    where the value is of another kind. Unknown keys are nobody's business.
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
        """Read a text, with `${VAR}` and `${env:VAR}` filled in; what is not set stays as it is written."""
        value = self.members.get(key)
        return None if value is None else self._read_string(value, key)

    def string_list(self, key: str) -> tuple[str, ...] | None:
        """Read a list of texts, or one text with spaces between them."""
        value = self.members.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            return tuple((self._read_string(value, key) or "").split())
        items = (self._read_string(item, key) for item in cast("list[object]", value))
        return tuple(item for item in items if item)

    def boolean(self, key: str) -> bool:
        """Read true or false; false where it is missing."""
        value = self.members.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._config_error(key, "must be true or false")
        return bool(value)

    def integer(self, key: str, minimum: int, maximum: int | None = None) -> int | None:
        """Read a number, also one that came out of a variable; fractions are cut off."""
        value = self.members.get(key)
        if isinstance(value, str):
            text = self._read_string(value, key)
            value = int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else text
        if value is None:
            return None
        limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        wrong = self._config_error(key, f"must be a number {limits}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong
        if not minimum <= value <= (1e9 if maximum is None else maximum):
            raise wrong
        return int(value)

    def choice(self, key: str, choices: Mapping[str, T]) -> T | None:
        """Read one of a few words and return what it means."""
        text = self.string(key)
        if text is None:
            return None
        if text not in choices:
            raise self._config_error(key, f"must be one of {', '.join(choices)}")
        return choices[text]

    def url(self, key: str) -> str | None:
        """Read a URL that may be fetched or shown, in the operator's own spelling."""
        text = self.string(key)
        if text is None:
            return None
        try:
            safe_url(text, f"value of {self.key_path}.{key}")
        except UnsafeUrl as error:
            unset = _REFERENCE.search(text)
            advice = f"Set {_variable_name(unset)} in .env." if unset else "Use an https address."
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

    def ids(self, key: str) -> frozenset[str] | None:
        """Read ids of people, roles and the like: numbers, texts of digits, or a text of several."""
        value = self.members.get(key)
        if value is None:
            return None
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        return frozenset(word for item in items for word in self._split_ids(item, key))

    def refuse_unknown_keys(self, known_keys: Sequence[str]) -> None:
        """Refuse a key that is none of these; for sections that are ours alone."""
        for key in self.members:
            if key not in known_keys:
                close = get_close_matches(key, known_keys, 1)
                raise ConfigError(
                    f"{self.key_path}.{key} is not known.",
                    f"Did you mean `{close[0]}`?" if close else f"It may have: {', '.join(known_keys)}.",
                )

    def networks(self, key: str) -> tuple[str, ...]:
        """Read a list of IP addresses or networks."""
        texts = self.string_list(key) or ()
        try:
            return tuple(str(ip_network(text, strict=False)) for text in texts)
        except ValueError:
            raise self._config_error(key, "must list addresses or networks such as 10.0.0.0/8") from None

    def hosts(self, key: str) -> tuple[str, ...]:
        """Read a list of host names, in the form of `host_name`."""
        try:
            return tuple(dict.fromkeys(normalize_host_name(text) for text in self.string_list(key) or ()))
        except ValueError:
            # UnicodeError, of IDNA, is one.
            raise self._config_error(
                key, "must list host names such as auth.example.com, and no addresses"
            ) from None

    def _split_ids(self, item: object, key: str) -> Iterator[str]:
        # As Hermes's own lists of people are written in .env: with commas.
        text = str(item) if isinstance(item, int) else self._read_string(item, key) or ""
        for word in re.split(r"[\s,]+", text):
            if word and not re.fullmatch(r"[0-9]{1,20}", word):
                raise self._config_error(key, "must list ids, which are numbers")
            if word:
                yield word

    def _read_string(self, value: object, key: str) -> str | None:
        if not isinstance(value, str):
            raise self._config_error(key, "must be text; put it in quotes")
        text = _REFERENCE.sub(self._substitute_variable, value).strip()
        if any(c < " " or c == "\x7f" for c in text):
            # Each of them ends in a header, a form or a URL.
            raise self._config_error(key, "holds a line break or another control character")
        return text or None

    def _substitute_variable(self, match: re.Match[str]) -> str:
        return self._variables.get(_variable_name(match)) or match[0]

    def _config_error(self, key: str, rule: str) -> ConfigError:
        return ConfigError(f"{self.key_path}.{key} {rule}.")


def _variable_name(match: re.Match[str]) -> str:
    return match[1].strip().removeprefix("env:").strip()

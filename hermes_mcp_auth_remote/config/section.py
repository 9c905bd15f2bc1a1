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
from hermes_mcp_auth_remote.oauth.hosts import host_name
from hermes_mcp_auth_remote.oauth.urls import safe_url

T = TypeVar("T")

_REFERENCE = re.compile(r"\$\{([^}]+)\}")


class Section:
    """A mapping with its place in the file, and the variables that its texts may refer to.

    Every reader returns None (or nothing) where the key is missing, null or empty, and raises ConfigError
    where the value is of another kind. Unknown keys are nobody's business.
    """

    def __init__(self, where: str, value: object, variables: Mapping[str, str]) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping of keys to values.")
        for key in cast("Mapping[object, object]", value):
            if not isinstance(key, str):
                raise ConfigError(f"{where}: a key is not text; put it in quotes.")
        self.where = where
        self.members = cast("Mapping[str, object]", value)
        self._variables = variables

    def section(self, key: str) -> Section:
        """Read a mapping; a missing one is empty."""
        value = self.members.get(key)
        return Section(f"{self.where}.{key}", {} if value is None else value, self._variables)

    def text(self, key: str) -> str | None:
        """Read a text, with `${VAR}` and `${env:VAR}` filled in; what is not set stays as it is written."""
        value = self.members.get(key)
        return None if value is None else self._text(value, key)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Read a list of texts, or one text with spaces between them."""
        value = self.members.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            return tuple((self._text(value, key) or "").split())
        items = (self._text(item, key) for item in cast("list[object]", value))
        return tuple(item for item in items if item)

    def flag(self, key: str) -> bool:
        """Read true or false; false where it is missing."""
        value = self.members.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._refusal(key, "must be true or false")
        return bool(value)

    def whole(self, key: str, lowest: int, highest: int | None = None) -> int | None:
        """Read a number, also one that came out of a variable; fractions are cut off."""
        value = self.members.get(key)
        if isinstance(value, str):
            text = self._text(value, key)
            value = int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else text
        if value is None:
            return None
        limits = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        wrong = self._refusal(key, f"must be a number {limits}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong
        if not lowest <= value <= (1e9 if highest is None else highest):
            raise wrong
        return int(value)

    def one_of(self, key: str, meanings: Mapping[str, T]) -> T | None:
        """Read one of a few words and return what it means."""
        text = self.text(key)
        if text is None:
            return None
        if text not in meanings:
            raise self._refusal(key, f"must be one of {', '.join(meanings)}")
        return meanings[text]

    def url(self, key: str) -> str | None:
        """Read a URL that may be fetched or shown, in the operator's own spelling."""
        text = self.text(key)
        if text is None:
            return None
        try:
            safe_url(text, f"value of {self.where}.{key}")
        except UnsafeUrl as error:
            unset = _REFERENCE.search(text)
            advice = f"Set {_name(unset)} in .env." if unset else "Use an https address."
            raise ConfigError(str(error), advice) from None
        return text

    def path(self, key: str) -> str | None:
        """Read the path of a file; a leading ~ is the user's home."""
        text = self.text(key)
        return self._expanded(text, key) if text else None

    def certificate(self) -> tuple[str | None, str | None]:
        """Read `client_cert` and `client_key`, or `client_cert: [certificate, key]`, as Hermes does."""
        if not isinstance(self.members.get("client_cert"), list):
            return self.path("client_cert"), self.path("client_key")
        files = self.texts("client_cert") or ()
        if len(files) != 2 or self.members.get("client_key") is not None:
            raise self._refusal(
                "client_cert", "must be one file, or [certificate, key] with an unencrypted key"
            )
        certificate, key = (self._expanded(file, "client_cert") for file in files)
        return certificate, key

    def _expanded(self, text: str, key: str) -> str:
        return str(Path(expand_user(text, f"Write the path in {self.where}.{key} in full.")))

    def ids(self, key: str) -> frozenset[str] | None:
        """Read ids of people, roles and the like: numbers, texts of digits, or a text of several."""
        value = self.members.get(key)
        if value is None:
            return None
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        return frozenset(word for item in items for word in self._ids(item, key))

    def refuse_others(self, known: Sequence[str]) -> None:
        """Refuse a key that is none of these; for sections that are ours alone."""
        for key in self.members:
            if key not in known:
                close = get_close_matches(key, known, 1)
                raise ConfigError(
                    f"{self.where}.{key} is not known.",
                    f"Did you mean `{close[0]}`?" if close else f"It may have: {', '.join(known)}.",
                )

    def networks(self, key: str) -> tuple[str, ...]:
        """Read a list of IP addresses or networks."""
        texts = self.texts(key) or ()
        try:
            return tuple(str(ip_network(text, strict=False)) for text in texts)
        except ValueError:
            raise self._refusal(key, "must list addresses or networks such as 10.0.0.0/8") from None

    def hosts(self, key: str) -> tuple[str, ...]:
        """Read a list of host names, in the form of `host_name`."""
        try:
            return tuple(dict.fromkeys(host_name(text) for text in self.texts(key) or ()))
        except ValueError:
            # UnicodeError, of IDNA, is one.
            raise self._refusal(
                key, "must list host names such as auth.example.com, and no addresses"
            ) from None

    def _ids(self, item: object, key: str) -> Iterator[str]:
        # As Hermes's own lists of people are written in .env: with commas.
        text = str(item) if isinstance(item, int) else self._text(item, key) or ""
        for word in re.split(r"[\s,]+", text):
            if word and not re.fullmatch(r"[0-9]{1,20}", word):
                raise self._refusal(key, "must list ids, which are numbers")
            if word:
                yield word

    def _text(self, value: object, key: str) -> str | None:
        if not isinstance(value, str):
            raise self._refusal(key, "must be text; put it in quotes")
        text = _REFERENCE.sub(self._filled, value).strip()
        if any(c < " " or c == "\x7f" for c in text):
            # Each of them ends in a header, a form or a URL.
            raise self._refusal(key, "holds a line break or another control character")
        return text or None

    def _filled(self, found: re.Match[str]) -> str:
        return self._variables.get(_name(found)) or found[0]

    def _refusal(self, key: str, rule: str) -> ConfigError:
        return ConfigError(f"{self.where}.{key} {rule}.")


def _name(found: re.Match[str]) -> str:
    return found[1].strip().removeprefix("env:").strip()

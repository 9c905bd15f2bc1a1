"""config.yaml and .env as they were at one moment: each file is read once, each section is parsed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import cast

from hermes_mcp_auth_remote.commands import login_command
from hermes_mcp_auth_remote.config.files import ConfigFile, read_config_file, variables_in
from hermes_mcp_auth_remote.config.known_keys import MAX_WARNINGS, entry_warnings, misspelt_sections
from hermes_mcp_auth_remote.config.server_entry import (
    as_mapping,
    has_url,
    is_enabled,
    read_address,
    read_server,
    uses_oauth,
)
from hermes_mcp_auth_remote.config.server_names import check_server_name, find_spelling
from hermes_mcp_auth_remote.errors import ConfigError, SchemeMissing, ServerNotFound
from hermes_mcp_auth_remote.hermes_home import file_stem, join_identities
from hermes_mcp_auth_remote.oauth.urls import add_scheme, is_same_address
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Owner, Server

SERVERS_SECTION = "mcp_servers"
_MAX_LISTED_NAMES = 10


@with_hidden_locals
class Configuration:
    """The content of config.yaml and .env. Each use of an unreadable file raises ConfigError."""

    def __init__(
        self, config: ConfigFile | ConfigError, env: ConfigFile | ConfigError, environ: Mapping[str, str]
    ) -> None:
        self._config = config
        self._env = env
        self._environ = environ
        self._servers: dict[str, Server | ConfigError] = {}
        # The results of `get_server`: `status` asks for the server of each session.
        self._found_servers: dict[str, Server] = {}

    def load_servers(self) -> dict[str, Server]:
        """Return every enabled server for which Hermes uses OAuth, by name; empty if there is no config.yaml.

        Raises ConfigError, which names the file, the line or the key.
        """
        names = [name for name, entry in self._entries.items() if uses_oauth(name, entry, self.variables)]
        for name in names:
            self._check_unique_stem(
                name, [other for other in self._names_by_stem[file_stem(name)] if other in names]
            )
        return {name: self._server(name) for name in names}

    def server_names(self) -> list[str]:
        """Return the enabled servers for which Hermes uses OAuth, including those with an invalid entry.

        Raises ConfigError if the file cannot be read.
        """
        return [name for name, entry in self._entries.items() if self._uses_oauth_or_is_invalid(name, entry)]

    def entry_names(self) -> list[str]:
        """Return the names of all entries, also of those that are disabled or need no OAuth.

        Raises ConfigError if the file cannot be read.
        """
        return list(self._entries)

    def find_server(self, name: str) -> Server:
        """Return one server by its name, even if its entry has no `auth`.

        Raises ServerNotFound, which lists similar names, or ConfigError.
        """
        server = self.get_server(name)
        if server is None:
            raise self.server_not_found(name)
        return server

    def get_server(self, name: str) -> Server | None:
        """Return one server by its name in any Unicode normal form, None if config.yaml has no such entry.

        Raises ConfigError.
        """
        if (found_server := self._found_servers.get(name)) is not None:
            return found_server
        entry_name = self._find_entry(name)
        if entry_name is None:
            check_server_name(name)
            return None
        entry = self._entries[entry_name]
        if "command" in as_mapping(entry) and not has_url(entry):
            raise ConfigError(
                f"{entry_name} is a stdio server and needs no login.", "Log in to a server with a `url`."
            )
        names_with_stem = self._names_by_stem[file_stem(entry_name)]
        self._check_unique_stem(
            entry_name, [other for other in names_with_stem if has_url(self._entries[other])]
        )
        server = self._found_servers[name] = self._server(entry_name)
        return server

    def names_at(self, url: str) -> tuple[str, ...]:
        """Return the names of the entries with this address (`oauth.urls.is_same_address`).

        An entry that is disabled counts only if no other one has the address. Skips entries with an invalid
        `url`. Raises ConfigError if the file cannot be read.
        """
        names = [
            name
            for name, entry in self._entries.items()
            if (address := read_address(name, entry, self.variables)) is not None
            and is_same_address(address, url)
        ]
        enabled_names = [name for name in names if is_enabled(self._entries[name])]
        return tuple(enabled_names or names)

    def has_entry(self, name: str) -> bool:
        """Return True if an entry has this name, or a name with the same token files. Raises ConfigError."""
        return self._find_entry(name) is not None or file_stem(name) in self._names_by_stem

    def server_not_found(
        self,
        name: str,
        owner: Owner = None,
        *,
        with_suggestions: bool = True,
        other_names: Iterable[str] = (),
    ) -> ServerNotFound:
        """Return the error for a name that neither config.yaml nor a stored login has.

        The search for suggestions compares all known names: turn it off for a name that no user typed.
        `other_names` are those of stored logins of the owner.
        """
        path, similar_names = self._config_file.path, list[str]()
        message = f"No server {name} in {path}."
        command = login_command(Server(name, ""), owner, hides_url=True)
        advice = f"Run `{command}` and type its address, or add it under `mcp_servers` in config.yaml."
        if with_suggestions:
            entry_names = [other for other, entry in self._entries.items() if has_url(entry)]
            known_names = list(dict.fromkeys([*entry_names, *other_names]))
            names_by_folded = {other.casefold(): other for other in known_names}
            matches = get_close_matches(name.casefold(), names_by_folded, cutoff=0.5)
            similar_names = [names_by_folded[match] for match in matches]
            # A host alone may be a mistyped name. With a path, it is an address.
            if (url := add_scheme(name)) is not None and not (similar_names and "/" not in name):
                return scheme_missing(name, url)
            if similar_names:
                advice = f"Did you mean {' or '.join(similar_names)}?"
            elif known_names:
                listed_names = ", ".join(sorted(known_names)[:_MAX_LISTED_NAMES])
                listing = "it has" if known_names == entry_names else "the known names are"
                message = f"No server {name} in {path}; {listing} {listed_names}."
            else:
                message = f"No server {name}: {path} names no server with a `url`."
        return ServerNotFound(message, advice, config_files=self.identity, similar_names=tuple(similar_names))

    def section(self, name: str) -> object:
        """Return the value of a top-level key of config.yaml; None if the file or the key is missing.

        Raises ConfigError for invalid YAML and for a duplicate key, with path and line.
        """
        document = self._config_file.document
        return None if document is None else document.section(name)

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """The variables for `${VAR}`: .env overrides the environment, as in Hermes. Raises ConfigError."""
        if isinstance(self._env, ConfigError):
            raise self._env.with_traceback(None)
        return variables_in(self._env, self._environ)

    @property
    def identity(self) -> str | None:
        """The identity of both files (`hermes_home.config_identity`); None if it is not certain."""
        config, env = self._config, self._env
        if isinstance(config, ConfigError) or isinstance(env, ConfigError):
            return None
        if config.identity is None or env.identity is None:
            return None
        return join_identities(config.identity, env.identity)

    def warnings(self, name_or_url: str) -> tuple[str, ...]:
        """Return what is probably wrong with an entry, such as a misspelt key; empty if there is no entry."""
        try:
            entry_names = self.names_at(name_or_url) if "://" in name_or_url else (name_or_url,)
            entry_name = self._find_entry(entry_names[0]) if len(entry_names) == 1 else None
        except ConfigError:
            return ()
        if entry_name is None:
            return ()
        return entry_warnings(entry_name, as_mapping(self._entries[entry_name]))

    def general_warnings(self) -> tuple[str, ...]:
        """Return what is probably wrong with config.yaml as a whole, such as a misspelt section."""
        try:
            document = self._config_file.document
        except ConfigError:
            return ()
        return () if document is None else misspelt_sections(document.names)

    def all_warnings(self) -> tuple[str, ...]:
        """Return the warnings about the file and about each of its entries, MAX_WARNINGS at most."""
        try:
            names = list(self._entries)
        except ConfigError:
            names = []
        warnings = list(self.general_warnings())
        for name in names:
            if len(warnings) >= MAX_WARNINGS:
                break
            warnings += self.warnings(name)
        return tuple(warnings[:MAX_WARNINGS])

    @property
    def _config_file(self) -> ConfigFile:
        if isinstance(self._config, ConfigError):
            raise self._config.with_traceback(None)
        return self._config

    @cached_property
    def _entries(self) -> Mapping[str, object]:
        """The `mcp_servers` mapping; empty if the file or the section is missing. Raises ConfigError."""
        entries, path = self.section(SERVERS_SECTION), self._config_file.path
        if entries is None:
            return {}
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: `mcp_servers` must be a mapping of names to servers.")
        for name in cast("dict[object, object]", entries):
            if not isinstance(name, str):
                raise ConfigError(f"{path}: a name in `mcp_servers` is not text; put it in quotes.")
        return cast("dict[str, object]", entries)

    @cached_property
    def _names_by_stem(self) -> Mapping[str, list[str]]:
        names = dict[str, list[str]]()
        for name in self._entries:
            names.setdefault(file_stem(name), []).append(name)
        return names

    @cached_property
    def _has_only_ascii_names(self) -> bool:
        return all(map(str.isascii, self._entries))

    def _find_entry(self, name: str) -> str | None:
        if name in self._entries:
            return name
        # Comparing normal forms costs a pass over all names.
        if name.isascii() and self._has_only_ascii_names:
            return None
        return find_spelling(name, self._entries)

    def _server(self, name: str) -> Server:
        outcome = self._servers.get(name)
        if outcome is None:
            try:
                outcome = self._read_server(name)
            except ConfigError as error:
                outcome = error
            self._servers[name] = outcome
        if isinstance(outcome, ConfigError):
            raise outcome.with_traceback(None)
        return outcome

    def _read_server(self, name: str) -> Server:
        check_server_name(name)
        entry = self._entries[name]
        server = read_server(name, entry, self.variables)
        # A URL with a `${VAR}` may also depend on the process environment: the files alone do not define it.
        has_reference = "${" in str(as_mapping(entry).get("url", ""))
        return server if has_reference else replace(server, config_files=self.identity)

    def _uses_oauth_or_is_invalid(self, name: str, entry: object) -> bool:
        try:
            return uses_oauth(name, entry, self.variables)
        except ConfigError:
            return True

    @staticmethod
    def _check_unique_stem(name: str, names_with_stem: list[str]) -> None:
        # Two servers with the same stem would overwrite each other's tokens.
        other = next((other for other in names_with_stem if other != name), None)
        if other is not None:
            raise ConfigError(
                f"The servers {name} and {other} use the same token file in Hermes: {file_stem(name)}.json.",
                "Rename one of them, so that they differ in letters or digits.",
            )


def scheme_missing(text: str, url: str) -> SchemeMissing:
    """Return the error for an address that lacks its scheme; `url` is the address that it means."""
    scheme = url.partition("://")[0]
    return SchemeMissing(
        f"{display_url(text)} is an address without {scheme}://.",
        f"Put {scheme}:// before the address.",
        text=text,
        url=url,
    )


def read_configuration(home: Path, environ: Mapping[str, str]) -> Configuration:
    """Read config.yaml and .env of a home once. Raises nothing: an unreadable file raises when it is used."""
    return Configuration(_read(home / "config.yaml"), _read(home / ".env"), environ)


def _read(path: Path) -> ConfigFile | ConfigError:
    try:
        return read_config_file(path)
    except ConfigError as error:
        return error

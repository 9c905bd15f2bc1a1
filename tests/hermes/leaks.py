"""Search for secrets in the model's requests, in Hermes's files and in the chats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.parts.fake_model import FakeModel
from tests.parts.hermes_gateway import Gateway


@dataclass(slots=True)
class TrackedSecrets:
    """The secrets of one test: `codes` pass through chats; `minted` are all secrets that its demo issued.

    `exempt` contains the chats that may show a code. It is None until the test sets it.
    """

    codes: set[str] = field(default_factory=set[str])
    minted: Collection[str] = ()
    exempt_chats: set[Any] | None = None

    def add_address(self, address: str) -> None:
        """Add the code and the state of a redirect URL."""
        self.codes |= {value for value in code_and_state(address) if len(value) > 7}


def code_and_state(address: str) -> set[str]:
    """Return the values of code and state in a redirect URL."""
    query = parse_qs(urlsplit(address).query)
    return {value for name in ("code", "state") for value in query.get(name, [])}


def assert_no_leaks(
    hermes: Gateway,
    model: FakeModel,
    tests: Iterable[TrackedSecrets],
    chats_showing: Callable[[str], Iterable[Any]],
) -> None:
    """Search everything for the secrets of these tests. The gateway may be running.

    No assertion here contains a secret, because pytest would print it.
    """
    tests = list(tests)
    codes = {code for secrets in tests for code in secrets.codes}
    tokens = {token for secrets in tests for token in list(secrets.minted)}
    assert not any(model.has_ever_received(code) for code in codes), "the model saw a code"
    assert hermes.find_any_in_home(codes) == []
    for secrets in tests:
        if secrets.exempt_chats is not None:
            showing_chats = {chat for code in secrets.codes for chat in chats_showing(code)}
            assert showing_chats <= secrets.exempt_chats, "a chat shows a code"
    assert not any(model.has_ever_received(token) for token in tokens), "the model saw a token"
    for text, name in (
        (hermes.logs(), "a log"),
        (hermes.state_db_text(), "state.db"),
        (hermes.transcripts(), "a transcript"),
    ):
        assert not any(token in text for token in tokens), f"{name} holds a token"

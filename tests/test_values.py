"""A Secret masks itself in every text. The other classes are plain, frozen values."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from dataclasses import FrozenInstanceError

import pytest

from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret, Server, ServerOptions
from tests.requirements import covers

TEXT = "s3cret-that-was-minted"


@covers("no-secret")
@pytest.mark.parametrize("form", ["{}", "{!r}", "{!s}", "{!a}", "{:>40}", "{0!r:.99}"])
def test_no_format_shows_a_secret(form: str) -> None:
    assert TEXT not in form.format(Secret(TEXT))
    assert "****" in form.format(Secret(TEXT))


@covers("no-secret")
def test_no_container_log_record_or_error_shows_a_secret() -> None:
    secret = Secret(TEXT)
    record = logging.LogRecord("x", 10, "x", 1, "%s %r", (secret, [secret]), None)
    shown = ("%s %r" % (secret, {"a": secret}), record.getMessage(), repr(ValueError(secret)))  # noqa: UP031
    assert TEXT not in "".join(shown)


@covers("no-secret")
def test_json_pickle_and_deepcopy_refuse_a_secret() -> None:
    for write in (json.dumps, pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            write(Secret(TEXT))
        assert TEXT not in str(caught.value)


def test_a_secret_reveals_compares_and_hashes_its_text() -> None:
    assert Secret(TEXT).reveal() == TEXT
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT[:-1])
    assert Secret(TEXT) != TEXT
    assert len({Secret(TEXT), Secret(TEXT), Secret("")}) == 2
    assert Secret("ü") != Secret("u")
    assert not Secret("")
    assert Secret("0")


@covers("no-secret")
def test_a_server_with_secrets_in_options_and_headers_masks_them() -> None:
    options = ServerOptions(client_id="c", client_secret=Secret(TEXT))
    shown = repr(Server("x", "https://mcp.example", options, {"x-api-key": Secret(TEXT)}))
    assert TEXT not in shown
    assert "client_id='c'" in shown


def test_credential_keys_and_origins_compare_by_value() -> None:
    assert CredentialKey("x") == CredentialKey("x", None) != CredentialKey("x", "telegram:42")
    assert (
        len({Origin("telegram", "1", user_id="2"), Origin("telegram", "1", "", "2"), Origin("terminal")}) == 2
    )
    with pytest.raises(FrozenInstanceError):
        CredentialKey("x").owner = "telegram:42"  # type: ignore[misc]


def test_a_secret_with_a_lone_surrogate_compares_normally() -> None:
    assert Secret("a\udc80") == Secret("a\udc80")
    assert Secret("a\udc80") != Secret("a\udc81")

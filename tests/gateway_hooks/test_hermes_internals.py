"""Missing names of Hermes: one warning, and no user gets more rights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.policy import HermesPolicy
from hermes_mcp_auth_remote.values import CredentialKey
from tests.requirements import covers

ANNA = Sender("42")


@covers("hermes-moved")
def test_a_missing_name_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hermes, "NAMES", {"anything": hermes.HermesName(("new_place", "old_place"), "nothing follows")}
    )
    for _ in range(3):
        assert hermes._import_name("anything") is None
    warning = "Hermes has no anything in new_place or old_place: nothing follows."
    assert [record.getMessage() for record in caplog.records].count(warning) == 1


@covers("hermes-moved", "hermes-who")
@pytest.mark.parametrize("gateway", [None, SimpleNamespace(), SimpleNamespace(_is_user_authorized=None)])
def test_a_gateway_without_an_authorization_check_admits_no_user(gateway: Any) -> None:
    policy = HermesPolicy(gateway, hermes.AdapterRef(None, SimpleNamespace(value="telegram")))
    assert not policy.may_talk(ANNA)
    assert not policy.may_change(ANNA)


@covers("hermes-moved", "hermes-who")
def test_without_rules_about_commands_no_user_is_an_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hermes, "make_source", lambda *_, **__: object())
    gateway = SimpleNamespace(_is_user_authorized=lambda _: True)
    policy = HermesPolicy(gateway, hermes.AdapterRef(None, SimpleNamespace(value="telegram")))
    assert policy.may_talk(ANNA)
    assert not policy.may_change(ANNA)
    assert CredentialKey("notes", policy.owner("telegram", "42")) == CredentialKey("notes")


def test_there_is_no_gateway_in_this_process() -> None:
    assert hermes.running_gateway() is None

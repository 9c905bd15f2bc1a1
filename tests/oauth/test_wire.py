"""The members of a server's document that are kept: whole ones, within the limit."""

from __future__ import annotations

import json

import pytest

from hermes_mcp_auth_remote.oauth.wire import MAX_KEPT_CHARS, select_members

# JSON writes this character as 12.
WIDE = "\U0001f600"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 60_000,
        WIDE * (MAX_KEPT_CHARS // 12 - 10),
        [WIDE * 60] * 90,
        10**4000,
    ],
    ids=["text", "wide text", "list of wide texts", "integer"],
)
def test_a_member_within_the_limit_is_kept_whole(value: object) -> None:
    document = {"other": 1, "value": value, "last": "z"}
    assert select_members(document, ("value", "last")) == {"value": value, "last": "z"}


@pytest.mark.parametrize(
    "values",
    [
        ["x" * 65_000] * 2,
        [WIDE * 5_400, WIDE * 100],
        ["\u00e9" * 10_900, "x" * 200],
        [[WIDE * 90] * 60, "x" * 2_000],
    ],
    ids=["text", "wide text", "accents", "list"],
)
def test_the_members_together_stay_within_the_limit(values: list[object]) -> None:
    document = {f"name{number}": value for number, value in enumerate(values)}
    assert len(json.dumps(document)) > MAX_KEPT_CHARS
    kept = select_members(document, document)
    assert 0 < len(json.dumps(kept)) <= MAX_KEPT_CHARS
    assert "name0" in kept

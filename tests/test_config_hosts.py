"""`oauth.allow_hosts`: host names are normalized before they are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.config import find_server
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.oauth.host_names import MAX_HOST_NAME_CHARS, is_listed_host, normalize_host_name
from tests.requirements import covers


def read_allow_hosts(folder: Path, value: object, env: str = "") -> tuple[str, ...]:
    entry = {"url": "https://mcp.example/mcp", "oauth": {"allow_hosts": value}}
    (folder / "config.yaml").write_text(json.dumps({"mcp_servers": {"a": entry}}), "utf-8")
    (folder / ".env").write_text(env, "utf-8")
    return find_server("a", folder, {}).options.allow_hosts


@covers("unchecked-host")
@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ()),
        ([], ()),
        ("", ()),
        ("auth.example", ("auth.example",)),
        ("auth.example  login.example", ("auth.example", "login.example")),
        (["Auth.Example.", "auth.example"], ("auth.example",)),
        (["bücher.example", "ＡＵＴＨ.example"], ("xn--bcher-kva.example", "auth.example")),
        (["vault", "under_score.example"], ("vault", "under_score.example")),
        (["${HOST}"], ("from-env.example",)),
    ],
)
def test_host_names_are_normalized(tmp_path: Path, value: object, names: tuple[str, ...]) -> None:
    assert read_allow_hosts(tmp_path, value, "HOST=From-Env.example") == names


@pytest.mark.parametrize(
    "value",
    [
        "10.0.0.1",
        ["127.1"],
        ["::1"],
        ["*.example"],
        ["https://auth.example"],
        ["auth.example:443"],
        ["${UNSET}"],
    ],
)
def test_the_error_for_an_invalid_host_names_the_key(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        read_allow_hosts(tmp_path, value)
    assert str(caught.value) == (
        "mcp_servers.a.oauth.allow_hosts must list host names such as auth.example.com, and no addresses."
    )


@pytest.mark.parametrize("value", [True, 7, {"auth.example": 1}, [7], [["auth.example"]]])
def test_a_value_that_is_not_text_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError, match=r"allow_hosts must be text"):
        read_allow_hosts(tmp_path, value)


@given(st.text(max_size=300))
def test_normalization_is_stable_or_raises_value_error(text: str) -> None:
    try:
        name = normalize_host_name(text)
    except ValueError:
        assert not is_listed_host(text, frozenset({text}))
        return
    assert normalize_host_name(name) == name == name.lower()
    assert len(name) <= MAX_HOST_NAME_CHARS
    assert is_listed_host(f"{name.upper()}.", frozenset({name}))

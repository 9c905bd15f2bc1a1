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


def allowed(folder: Path, value: object, env: str = "") -> tuple[str, ...]:
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
def test_names_are_read_in_one_form(tmp_path: Path, value: object, names: tuple[str, ...]) -> None:
    assert allowed(tmp_path, value, "HOST=From-Env.example") == names


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
def test_all_else_is_refused_with_the_key(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        allowed(tmp_path, value)
    assert str(caught.value) == (
        "mcp_servers.a.oauth.allow_hosts must list host names such as auth.example.com, and no addresses."
    )


@pytest.mark.parametrize("value", [True, 7, {"auth.example": 1}, [7], [["auth.example"]]])
def test_what_is_no_text_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError, match=r"allow_hosts must be text"):
        allowed(tmp_path, value)


@given(st.text(max_size=300))
def test_a_name_in_its_form_stays_as_it_is_and_all_else_is_a_value_error(text: str) -> None:
    try:
        name = normalize_host_name(text)
    except ValueError:
        assert not is_listed_host(text, frozenset({text}))
        return
    assert normalize_host_name(name) == name == name.lower()
    assert len(name) <= MAX_HOST_NAME_CHARS
    assert is_listed_host(f"{name.upper()}.", frozenset({name}))

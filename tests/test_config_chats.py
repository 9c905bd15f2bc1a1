"""Reading `mcp_auth_chats`: which users may log in, whose tokens they use, and which values are refused."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes_mcp_auth_remote.config import chats, load_servers
from hermes_mcp_auth_remote.config.chats import (
    ChatSettings,
    PlatformSettings,
    Webhook,
    load_chat_settings,
    read_bot_token,
    validate_bot_token,
)
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError
from hermes_mcp_auth_remote.platforms import DISCORD, PLATFORMS, TELEGRAM
from hermes_mcp_auth_remote.values import Secret
from tests.requirements import covers

pytestmark = pytest.mark.slow

TOKEN = "123456:a-token-that-nobody-may-see"


def write_config(home: Path, yaml: str, env: str = "") -> Path:
    (home / "config.yaml").write_text(dedent(yaml), encoding="utf-8")
    (home / ".env").write_text(env, encoding="utf-8")
    return home


def test_without_the_section_there_are_no_chat_settings(tmp_path: Path) -> None:
    assert load_chat_settings(tmp_path, {}) is None
    assert load_chat_settings(write_config(tmp_path, "mcp_servers: {}"), {}) is None
    assert load_chat_settings(write_config(tmp_path, "mcp_auth_chats:"), {}) is None
    assert load_chat_settings(write_config(tmp_path, "mcp_auth_chats: {}"), {}) == ChatSettings()


def test_every_key_is_read_and_sections_of_hermes_are_ignored(tmp_path: Path) -> None:
    home = write_config(
        tmp_path,
        """
        telegram: {allowed_users: [1]}
        mcp_servers: {a: {url: "https://a.example/mcp", auth: oauth}}
        mcp_auth_chats:
          owners: per_user
          connect_urls: false
          telegram:
            allow: [7, "8", "${PEOPLE}"]
            admins: 7
            device: false
            webhook: {url: "https://bot.example/hook", listen: 0.0.0.0, port: 80, certificate: /c, key: /k}
          discord:
            allow: []
            admins: []
            roles: "11 12"
            admin_roles: [13]
            guilds: 123456789012345678
            device: true
        """,
        "PEOPLE=9, 10",
    )
    assert load_chat_settings(home, {}) == ChatSettings(
        owners="per_user",
        platforms={
            "telegram": PlatformSettings(
                allow=frozenset({"7", "8", "9", "10"}),
                admins=frozenset({"7"}),
                allows_device=False,
                webhook=Webhook("https://bot.example/hook", "0.0.0.0", 80, Path("/c"), Path("/k")),
            ),
            "discord": PlatformSettings(
                admins=frozenset(),
                roles=frozenset({"11", "12"}),
                admin_roles=frozenset({"13"}),
                guilds=frozenset({"123456789012345678"}),
            ),
        },
        connect_urls=False,
    )
    assert list(load_servers(home, {})) == ["a"]


@covers("operators-choice")
def test_the_operator_chooses_whose_tokens_are_used() -> None:
    assert ChatSettings().owner("telegram", "7") is None
    assert ChatSettings("per_user").owner("telegram", "7") == "telegram:7"


def test_a_platform_can_turn_off_device_logins_for_itself_only() -> None:
    assert ChatSettings().device_platforms is None
    off = ChatSettings(platforms={"telegram": PlatformSettings(allows_device=False)})
    assert off.device_platforms == frozenset({"terminal", *PLATFORMS}) - {"telegram"}


@covers("operators-choice")
@pytest.mark.parametrize(
    ("yaml", "message", "advice"),
    [
        ("owner: shared", "mcp_auth_chats.owner is not known.", "Did you mean `owners`?"),
        ("owners: all", "mcp_auth_chats.owners must be one of shared, per_user.", ""),
        (
            "slack: {}",
            "mcp_auth_chats.slack is not known.",
            "Use one of: owners, connect_urls, telegram,",
        ),
        ("telegram: [7]", "mcp_auth_chats.telegram must be a mapping of keys to values.", ""),
        ("telegram: {alow: 7}", "mcp_auth_chats.telegram.alow is not known.", "Did you mean `allow`?"),
        ("telegram: {roles: [7]}", "mcp_auth_chats.telegram.roles is not known.", ""),
        ("discord: {webhook: {}}", "mcp_auth_chats.discord.webhook is not known.", ""),
        ("telegram: {allow: [anna]}", "mcp_auth_chats.telegram.allow must list ids, which are numbers.", ""),
        ("telegram: {allow: [-7]}", "mcp_auth_chats.telegram.allow must list ids, which are numbers.", ""),
        ("telegram: {allow: true}", "mcp_auth_chats.telegram.allow must list ids, which are numbers.", ""),
        ("telegram: {allow: '${UNSET}'}", "mcp_auth_chats.telegram.allow must list ids, which are", ""),
        ("telegram: {allow: {7: 8}}", "mcp_auth_chats.telegram.allow must be text; put it in quotes.", ""),
        ("telegram: {allow: [1.5]}", "mcp_auth_chats.telegram.allow must be text; put it in quotes.", ""),
        ("telegram: {device: 'no'}", "mcp_auth_chats.telegram.device must be true or false.", ""),
        ("telegram: {webhook: {port: 80}}", "mcp_auth_chats.telegram.webhook needs", ""),
        (
            "telegram: {webhook: {url: 'http://bot.example'}}",
            "The value of mcp_auth_chats.telegram.webhook.url is plain http;",
            "",
        ),
        (
            "telegram: {webhook: {url: 'https://bot.example', key: /k}}",
            "mcp_auth_chats.telegram.webhook needs both",
            "",
        ),
        (
            "telegram: {webhook: {url: 'https://bot.example', port: 0}}",
            "mcp_auth_chats.telegram.webhook.port must be a number from 1 to 65535.",
            "",
        ),
        ("telegram: {allow: 7}\n  telegram: {allow: 8}", "the key `telegram` is given twice.", ""),
    ],
)
def test_the_error_for_a_wrong_value_names_its_key(
    tmp_path: Path, yaml: str, message: str, advice: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_chat_settings(write_config(tmp_path, f"mcp_auth_chats:\n  {yaml}\n"), {})
    assert message in str(caught.value)
    assert caught.value.advice.startswith(advice)
    assert caught.value.advice


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
PLATFORM = st.dictionaries(
    st.sampled_from([*TELEGRAM.setting_keys, *DISCORD.setting_keys]), VALUES, max_size=3
)


@given(st.dictionaries(st.sampled_from(["owners", *PLATFORMS]), VALUES | PLATFORM, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_random_section_is_read_or_the_error_names_it(tmp_path: Path, section: object) -> None:
    import yaml

    try:
        load_chat_settings(write_config(tmp_path, yaml.safe_dump({"mcp_auth_chats": section})), {})
    except McpAuthError as error:
        assert "mcp_auth_chats" in str(error)  # noqa: PT017


def test_every_key_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text("utf-8")
    section = page.partition(f"`{chats.SECTION_NAME}`")[2]
    keys = {"owners", *PLATFORMS, *chats.WEBHOOK_KEYS}
    keys.update(*(platform.setting_keys for platform in PLATFORMS.values()))
    assert {key for key in keys if not re.search(rf"[`{{ ]{key}\b", section)} == set()


@pytest.mark.parametrize(
    ("env", "environ"), [(f"TELEGRAM_BOT_TOKEN={TOKEN}\n", {}), ("", {"TELEGRAM_BOT_TOKEN": f" {TOKEN}\n"})]
)
def test_the_token_of_a_bot_is_read_from_the_same_variable_as_in_hermes(
    tmp_path: Path, env: str, environ: dict[str, str]
) -> None:
    assert read_bot_token(TELEGRAM, write_config(tmp_path, "", env), environ) == Secret(TOKEN)


def test_the_error_for_a_missing_token_names_the_variable_and_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no token for the Discord bot") as caught:
        read_bot_token(DISCORD, tmp_path, {"DISCORD_BOT_TOKEN": " "})
    assert "DISCORD_BOT_TOKEN" in caught.value.advice
    assert "--discord-token-file" in caught.value.advice


@covers("no-secret")
@pytest.mark.parametrize("text", [f"{TOKEN} two", f"{TOKEN}\nX: y", f"{TOKEN}/../x", f"{TOKEN}é"])
def test_an_invalid_token_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_bot_token(text, TELEGRAM)
    assert TOKEN not in f"{caught.value} {caught.value.advice} {caught.value!r}"

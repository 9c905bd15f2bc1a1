"""Restarts of the gateway in the middle of a login, also with other settings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from hermes_mcp_auth_remote.service import AuthService
from tests.hermes.scenario import LAYOUTS_WITH_SOAK, Scenario, SharedTelegramGateway, run_shared_gateway
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-restarts")]


@pytest.fixture(scope="module", params=LAYOUTS_WITH_SOAK)
def hermes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedTelegramGateway]:
    with run_shared_gateway(tmp_path_factory.mktemp("hermes"), layout=request.param) as shared:
        yield shared


@covers("hermes-who", "hermes-kept-out")
def test_a_user_who_is_no_longer_admitted_cannot_finish_a_login(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        address = scenario.start_login()
        hermes.revoke_access(scenario.anna)
        scenario.api.say(scenario.anna, address)
        scenario.api.say(scenario.ben, "Are you there?")
        scenario.wait_for_message("Understood.", scenario.ben)
        assert not scenario.has_tokens()
        login = next(iter(AuthService(scenario.home).blocking.waiting_logins()))
        asyncio.run(AuthService(scenario.home).cancel(login.id))
        # Only Anna's own chat may show her message.
        scenario.assert_no_leaks_outside(scenario.api.private_chat(scenario.anna))


@covers("hermes-story")
def test_the_gateway_is_restarted_between_prompt_and_paste(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        address = scenario.start_login()
        scenario.hermes.restart()
        scenario.api.say(scenario.anna, address)
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_tools()
        # The second process has replaced the prompt of the first.
        assert scenario.bot_messages(f"Connect {scenario.notes}") == []
        scenario.assert_no_leaks()


@covers("hermes-who")
def test_administrators_connect_and_hermes_refuses_other_users(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        restart_with_admins(scenario, hermes.operator_id, scenario.anna.id)
        scenario.api.say(scenario.ben, f"/mcpauth {scenario.notes}")
        scenario.wait_for_message("admin-only", scenario.ben)
        address = scenario.start_login()
        # The plugin checks again at the paste whether the user is an administrator.
        restart_with_admins(scenario, hermes.operator_id, scenario.ben.id)
        scenario.api.say(scenario.anna, address)
        scenario.wait_for_message("Only an administrator", scenario.anna)
        scenario.wait_for_message(f"{scenario.notes}: not connected", scenario.anna)
        assert not scenario.has_tokens()
        scenario.api.say(scenario.ben, scenario.start_login(scenario.ben))
        scenario.wait_for_message(f"{scenario.notes}: connected", scenario.ben)
        scenario.assert_no_leaks()


def restart_with_admins(scenario: Scenario, *users: int) -> None:
    """Restart with these users as administrators. The next test gets a gateway without administrators."""
    extra = scenario.hermes.settings["platforms"]["telegram"]["extra"]
    extra["allow_admin_from"] = [str(user) for user in users]
    scenario.hermes.restart()

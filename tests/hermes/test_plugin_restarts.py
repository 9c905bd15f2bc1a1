"""Restarts of the gateway in the middle of a login, also with other settings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from hermes_mcp_auth_remote.service import AuthService
from tests.hermes.stage import SharedStage, Stage, shared_stage
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-restarts")]


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStage]:
    with shared_stage(tmp_path_factory.mktemp("hermes")) as shared:
        yield shared


@covers("hermes-who", "hermes-kept-out")
def test_a_user_who_is_no_longer_admitted_cannot_finish_a_login(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        address = stage.begin()
        hermes.dismiss(stage.anna)
        stage.api.say(stage.anna, address)
        stage.api.say(stage.ben, "Are you there?")
        stage.said("Understood.", stage.ben)
        assert not stage.tokens()
        login = next(iter(AuthService(stage.home).waiting_logins()))
        asyncio.run(AuthService(stage.home).cancel(login.id))
        # Only her own chat shows her message.
        stage.leaked_nowhere_but(stage.api.private(stage.anna))


@covers("hermes-story")
def test_the_gateway_is_restarted_between_prompt_and_paste(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        address = stage.begin()
        stage.hermes.restart()
        stage.api.say(stage.anna, address)
        stage.said(f"{stage.notes}: connected")
        stage.live()
        # The second process has replaced the prompt of the first.
        assert stage.shown(f"Connect {stage.notes}") == []
        stage.nothing_leaked()


@covers("hermes-who")
def test_administrators_connect_and_hermes_refuses_other_users(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        restart_with_admins(stage, hermes.operator, stage.anna.id)
        stage.api.say(stage.ben, f"/mcpauth {stage.notes}")
        stage.said("admin-only", stage.ben)
        address = stage.begin()
        # The plugin checks again at the paste whether the user is an administrator.
        restart_with_admins(stage, hermes.operator, stage.ben.id)
        stage.api.say(stage.anna, address)
        stage.said("Only an administrator", stage.anna)
        stage.said(f"{stage.notes}: not connected", stage.anna)
        assert not stage.tokens()
        stage.api.say(stage.ben, stage.begin(stage.ben))
        stage.said(f"{stage.notes}: connected", stage.ben)
        stage.nothing_leaked()


def restart_with_admins(stage: Stage, *users: int) -> None:
    """Restart with these users as administrators. The next test gets a gateway without any."""
    extra = stage.hermes.settings["platforms"]["telegram"]["extra"]
    extra["allow_admin_from"] = [str(user) for user in users]
    stage.hermes.restart()

"""Failures between Discord and the bot: lost connections, slow servers, rate limits."""

from __future__ import annotations

import logging

import pytest

from gateway_hooks.dialog.policy import AllowList
from tests.gateway_hooks.discord.given import PASTE, QR, Scene
from tests.parts.authorization_server import Fault, Gate
from tests.parts.discord_api import Interaction
from tests.requirements import covers
from tests.service.given import eventually

pytestmark = pytest.mark.slow


@covers("discord-gateway")
def test_a_gateway_that_is_lost_in_the_middle_of_a_login_is_resumed(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        prompt = scene.connect(ada)
        answer = scene.approve()
        api.drop()
        # The gateway delivers this press after the resume.
        pressed = api.press(ada, prompt, PASTE)
        window = api.modal(pressed)
        assert api.gateway.resumes == 1
        api.drop()
        api.submit(ada, window, {"The address your browser ended on": answer})
        scene.until_shows(prompt, "notes: connected")
        assert api.gateway.identifies == 1


@covers("discord-gateway")
def test_a_session_that_is_invalid_is_begun_anew_and_the_login_goes_on(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        prompt = scene.connect(ada)
        answer = scene.approve()
        api.invalidate_session()
        api.wait(lambda: api.gateway.ready == 2, 30)
        scene.paste(ada, prompt, answer)
        scene.until_shows(prompt, "notes: connected")
    assert api.syncs == 3


@covers("discord-gateway")
def test_a_device_login_ends_while_the_gateway_is_away(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        prompt = scene.connect(ada)
        api.ask_reconnect()
        scene.clock.now += 601
        scene.until_shows(prompt, "not finished in time")
        api.wait(lambda: api.gateway.resumes == 1, 30)


def is_waiting(interaction: Interaction) -> bool:
    return interaction.original is not None and interaction.original.loading


@covers("discord-in-time")
def test_an_interaction_is_acknowledged_while_the_authorization_server_takes_its_time(scene: Scene) -> None:
    api, gate = scene.api, Gate()
    scene.demo.authorization_server.record.add_fault("authorization_server_metadata", Fault(gate=gate))
    with scene.bot():
        asked = api.slash(scene.ada, scene.channel, "connect", server="notes")
        assert gate.arrived.wait(20)
        # The bot acknowledges before the first request to a server.
        assert asked.acknowledged_at is not None
        assert is_waiting(asked)
        scene.clock.now += 60
        gate.open()
        assert "Connect notes" in api.answer(asked).text


@covers("discord-in-time")
def test_a_window_that_is_sent_off_is_acknowledged_while_tokens_are_asked_for(scene: Scene) -> None:
    gate = Gate()
    with scene.bot():
        prompt = scene.connect(scene.ada)
        answer = scene.approve()
        scene.demo.authorization_server.record.add_fault("token", Fault(gate=gate))
        sent = scene.paste(scene.ada, prompt, answer)
        assert gate.arrived.wait(20)
        assert sent.acknowledged_at is not None
        scene.until_shows(prompt, "requesting the tokens")
        gate.open()
        scene.until_shows(prompt, "notes: connected")


def test_what_cannot_be_acknowledged_in_time_does_no_work(scene: Scene) -> None:
    api = scene.api
    with scene.bot():
        api.fail_next("POST", "/callback", 404, {"message": "Unknown interaction", "code": 10062})
        asked = api.slash(scene.ada, scene.channel, "connect", server="notes")
        api.wait(lambda: any(call.status == 404 for call in api.calls))
        assert "Connect notes" in scene.connect(scene.ada).text
    assert asked.original is None
    assert len(scene.store.logins()) == 1


def test_a_server_that_fails_is_said_with_what_to_do(scene: Scene) -> None:
    api = scene.api
    scene.demo.authorization_server.record.add_fault("authorization_server_metadata", Fault(status=503), None)
    with scene.bot():
        said = scene.connect(scene.ada)
        assert "notes: not connected" in said.text
        scene.demo.authorization_server.clear_faults()
        api.press(scene.ada, said, "Try again")
        scene.until_shows(said, "Connect notes")


@covers("discord-limits")
def test_requests_that_are_too_many_are_made_a_little_later(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        for method, part in (("POST", "/callback"), ("POST", "/webhooks/"), ("PATCH", "/webhooks/")):
            api.limit_next(method, part, 0.05)
        prompt = scene.connect(ada)
        scene.paste(ada, prompt, scene.approve())
        scene.until_shows(prompt, "notes: connected")


def test_a_message_that_discord_does_not_take_is_tried_again(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        prompt = scene.connect(ada)
        api.fail_next("PATCH", "/webhooks/", 400, {"message": "No", "code": 0})
        scene.paste(ada, prompt, scene.approve())
        eventually(lambda: scene.store.connection(scene.server) is not None)
        api.wait(lambda: any(call.status == 400 for call in api.calls))
        scene.clock.now += 6
        scene.until_shows(prompt, "notes: connected")


@covers("discord-in-time")
def test_a_hundred_people_at_once_are_all_answered(scene: Scene) -> None:
    api = scene.api
    people = [api.user(f"user{number}") for number in range(100)]
    channel = api.guild("Many", people).channel("general")
    with scene.bot(policy=AllowList(users=frozenset(one.id for one in people))):
        asked = [api.slash(one, channel, "connections") for one in people]
        for one in asked:
            assert "Connections" in api.answer(one, seconds=30).text
        assert not any(api.failed(one) for one in asked)


def test_an_error_of_the_library_names_no_address(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    api = scene.api
    with scene.bot():
        prompt = scene.connect(scene.ada)
        api.fail_next("POST", "/webhooks/", 400, {"message": "No", "code": 0}, times=1)
        api.press(scene.ada, prompt, QR)
        eventually(lambda: "could not be answered" in caplog.text or "Discord refused" in caplog.text)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert told
    for token in (each.token for each in api._state.interactions.values()):
        assert all(token not in str(record.__dict__) for record in told)

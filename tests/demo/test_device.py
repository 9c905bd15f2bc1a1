"""The demo's device flow follows RFC 8628, with a clock that only the test advances."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from hermes_mcp_auth_remote.demo.pages import consent_page, decided_page, user_code_page
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT
from tests.browserless import Refused, approve_device, deny_device, fetch, read_consent
from tests.demo.player import MovedClock, Player, refusal
from tests.parts.authorization_server import Demo
from tests.parts.chromium import chromium

pytestmark = pytest.mark.slow

GRANTS = ["authorization_code", "refresh_token", DEVICE_GRANT]
HOSTILE = "\"><script>alert('x')</script>&amp;"
WAITS = (400, "authorization_pending")


class DevicePlayer(Player):
    def __init__(self, demo: Demo, **registration: object) -> None:
        super().__init__(demo, **{"grant_types": GRANTS, **registration})

    def authorize_device(self, **changes: str | None) -> httpx.Response:
        form: dict[str, str | None] = {"scope": "mcp:tools", "resource": self.demo.mcp_url, **changes}
        return self.ask("/device_authorization", form)

    def device(self, **changes: str | None) -> dict[str, Any]:
        answer = self.authorize_device(**changes)
        assert answer.status_code == 200, answer.text
        device: dict[str, Any] = answer.json()
        return device

    def poll(self, device: dict[str, Any], **changes: str | None) -> httpx.Response:
        form: dict[str, str | None] = {
            "grant_type": DEVICE_GRANT,
            "device_code": device["device_code"],
            "resource": self.demo.mcp_url,
            **changes,
        }
        return self.ask("/token", form)


@pytest.fixture
def player(demo: Demo) -> DevicePlayer:
    demo.authorization_server.change_behaviour(with_device=True)
    return DevicePlayer(demo)


@pytest.mark.parametrize("complete", [True, False])
def test_a_device_is_approved_by_link_or_by_a_code_however_it_is_typed(
    player: DevicePlayer,
    complete: bool,  # noqa: FBT001
) -> None:
    answer = player.authorize_device()
    assert answer.headers["cache-control"] == "no-store"
    device = answer.json()
    assert (device["expires_in"], device["interval"]) == (600, 5)
    assert re.fullmatch(r"[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}", device["user_code"])
    if complete:
        page = approve_device(device["verification_uri_complete"])
    else:
        page = approve_device(device["verification_uri"], f" {device['user_code'].lower().replace('-', ' ')}")
    assert "Your device is connected" in page
    tokens = player.poll(device).json()
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "mcp:tools")
    assert player.call(tokens["access_token"]).status_code != 401
    assert player.refresh(tokens["refresh_token"]).status_code == 200
    assert {device["device_code"], tokens["access_token"]} <= player.demo.authorization_server.minted_secrets
    assert [
        player.demo.authorization_server.count_requests(step)
        for step in ("device_authorization", "device_poll")
    ] == [1, 1]


def test_a_device_that_waits_is_pending_and_one_that_hurries_is_slowed_down_for_good(
    clock: MovedClock, player: DevicePlayer
) -> None:
    device = player.device()
    assert refusal(player.poll(device)) == WAITS
    clock.now += 4
    assert refusal(player.poll(device)) == (400, "slow_down")
    clock.now += 9
    assert refusal(player.poll(device)) == (400, "slow_down")
    approve_device(device["verification_uri_complete"])
    clock.now += 14
    assert refusal(player.poll(device)) == (400, "slow_down"), "also if the user approved it meanwhile"
    clock.now += 20
    assert player.poll(device).status_code == 200


def test_without_an_interval_it_is_five_seconds(clock: MovedClock, player: DevicePlayer) -> None:
    player.demo.authorization_server.change_behaviour(device_interval_seconds=None)
    device = player.device()
    assert "interval" not in device
    assert refusal(player.poll(device)) == WAITS
    clock.now += 5
    assert refusal(player.poll(device)) == WAITS
    clock.now += 4
    assert refusal(player.poll(device)) == (400, "slow_down")


def test_a_code_expires_for_the_device_and_for_the_person(clock: MovedClock, player: DevicePlayer) -> None:
    player.demo.authorization_server.change_behaviour(device_seconds=60)
    approved, waiting = player.device(), player.device()
    assert waiting["expires_in"] == 60
    clock.now += 59
    approve_device(approved["verification_uri_complete"])
    clock.now += 1
    assert refusal(player.poll(approved)) == (400, "expired_token")
    assert refusal(player.poll(waiting)) == (400, "expired_token")
    with pytest.raises(Refused, match="No device waits"):
        approve_device(waiting["verification_uri_complete"])


def test_a_device_code_is_good_once_and_its_reuse_revokes_what_it_gave(
    clock: MovedClock, player: DevicePlayer
) -> None:
    device = player.device()
    approve_device(device["verification_uri_complete"])
    tokens = player.poll(device).json()
    clock.now += 5
    assert refusal(player.poll(device)) == (400, "invalid_grant")
    assert player.call(tokens["access_token"]).status_code == 401


def test_a_person_decides_once_and_a_denial_is_final(clock: MovedClock, player: DevicePlayer) -> None:
    device = player.device()
    assert "was not connected" in deny_device(device["verification_uri"], device["user_code"])
    for _ in range(2):
        assert refusal(player.poll(device)) == (400, "access_denied")
        clock.now += 5
    with pytest.raises(Refused, match="No device waits"):
        approve_device(device["verification_uri_complete"])


def test_only_the_browser_that_was_shown_the_page_decides_and_only_once(player: DevicePlayer) -> None:
    device = player.device()
    url = device["verification_uri_complete"]
    _, headers, page = fetch("GET", url)
    action, fields = read_consent(page)
    assert device["user_code"] in page
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    form = urlencode({**fields, "decision": "approve"})
    decide = device["verification_uri"].removesuffix("/device") + action
    assert fetch("POST", decide, form)[0] == 400
    assert refusal(player.poll(device)) == WAITS
    _, headers, page = fetch("GET", url)
    form = urlencode({**read_consent(page)[1], "decision": "approve"})
    cookie = headers["set-cookie"].partition(";")[0]
    assert [fetch("POST", decide, form, cookie)[0] for _ in range(2)] == [200, 400]


def test_of_two_open_pages_the_first_decision_counts(player: DevicePlayer) -> None:
    device = player.device()
    pages = [fetch("GET", device["verification_uri_complete"]) for _ in range(2)]
    answers = []
    for (_, headers, page), decision in zip(pages, ("deny", "approve"), strict=True):
        form = urlencode({**read_consent(page)[1], "decision": decision})
        cookie = headers["set-cookie"].partition(";")[0]
        answers.append(fetch("POST", device["verification_uri"], form, cookie)[0])
    assert answers == [200, 400]
    assert refusal(player.poll(device)) == (400, "access_denied")


@pytest.mark.parametrize("code", ["", "BBBB-BBBB", "<script>alert(1)</script>", "x" * 5000])
def test_a_wrong_user_code_shows_the_form_again_and_nothing_of_what_was_typed(
    player: DevicePlayer, code: str
) -> None:
    status, _, page = fetch("GET", f"{player.issuer}/device?{urlencode({'user_code': code})}")
    assert status == 400
    assert "No device waits with that code" in page
    assert 'name="user_code"' in page
    assert not code or code not in page


def test_another_clients_device_code_is_unknown(player: DevicePlayer) -> None:
    device = player.device()
    approve_device(device["verification_uri_complete"])
    other = DevicePlayer(player.demo)
    assert refusal(other.poll(device)) == (400, "invalid_grant")
    assert refusal(player.poll(device, device_code="dc_made-up")) == (400, "invalid_grant")
    assert refusal(player.poll(device, device_code=None)) == (400, "invalid_request")
    assert player.poll(device).status_code == 200


def test_a_client_without_the_grant_is_unauthorized_at_both_endpoints(player: DevicePlayer) -> None:
    device, older = player.device(), Player(player.demo)
    assert refusal(older.ask("/device_authorization", {"scope": "mcp:tools"})) == (400, "unauthorized_client")
    form: dict[str, str | None] = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"]}
    assert refusal(older.ask("/token", form)) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "mail:all"}, "invalid_scope"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"resource": None}, "invalid_target"),
    ],
)
def test_scope_and_resource_are_checked_as_for_a_code(
    player: DevicePlayer, changes: dict[str, str | None], error: str
) -> None:
    assert refusal(player.authorize_device(**changes)) == (400, error)


def test_the_poll_names_the_same_resource_and_a_wrong_one_uses_nothing_up(
    clock: MovedClock, player: DevicePlayer
) -> None:
    device = player.device()
    approve_device(device["verification_uri_complete"])
    for resource in (None, "https://other.example/mcp"):
        assert refusal(player.poll(device, resource=resource)) == (400, "invalid_target")
        clock.now += 5
    assert player.poll(device).status_code == 200


def test_a_confidential_client_authenticates_for_its_device(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_device=True)
    player = DevicePlayer(demo, token_endpoint_auth_method="client_secret_post")
    assert refusal(player.authorize_device()) == (401, "invalid_client")
    device = player.device(client_secret=player.client["client_secret"])
    approve_device(device["verification_uri_complete"])
    assert refusal(player.poll(device)) == (401, "invalid_client")
    assert player.poll(device, client_secret=player.client["client_secret"]).status_code == 200


def test_off_by_default_there_is_neither_endpoint_nor_page_nor_grant(demo: Demo) -> None:
    document = httpx.get(f"{demo.issuer}/.well-known/oauth-authorization-server").json()
    assert "device_authorization_endpoint" not in document
    assert DEVICE_GRANT not in document["grant_types_supported"]
    player = Player(demo)
    assert refusal(player.register(grant_types=GRANTS)) == (400, "invalid_client_metadata")
    assert player.ask("/device_authorization", {}).status_code == 404
    assert httpx.get(f"{demo.issuer}/device").status_code == 404
    form: dict[str, str | None] = {"grant_type": DEVICE_GRANT, "device_code": "x"}
    assert refusal(player.ask("/token", form)) == (400, "unsupported_grant_type")


def test_the_knobs_leave_out_the_complete_address_and_what_rfc_8414_would_say(player: DevicePlayer) -> None:
    server, issuer = player.demo.authorization_server, player.issuer
    both = ("rfc8414", "openid_appended")
    server.change_behaviour(
        with_verification_uri_complete=False, device_only_in_openid=True, metadata_locations=both
    )
    assert "verification_uri_complete" not in player.device()
    plain = httpx.get(f"{issuer}/.well-known/oauth-authorization-server").json()
    openid = httpx.get(f"{issuer}/.well-known/openid-configuration").json()
    assert "device_authorization_endpoint" not in plain
    assert DEVICE_GRANT not in plain["grant_types_supported"]
    assert openid["device_authorization_endpoint"] == f"{issuer}/device_authorization"
    assert DEVICE_GRANT in openid["grant_types_supported"]
    server.change_behaviour(device_scopes=frozenset({"mcp:write"}), device_overrides={"user_code": None})
    assert refusal(player.authorize_device()) == (400, "invalid_scope")
    assert "user_code" not in player.device(scope="mcp:write")


def test_auto_approve_approves_whoever_opens_the_address(player: DevicePlayer) -> None:
    player.demo.authorization_server.change_behaviour(auto_approve=True)
    device = player.device()
    assert refusal(player.poll(device)) == WAITS
    assert "Your device is connected" in approve_device(device["verification_uri_complete"])


def test_faults_and_counters_know_the_steps(clock: MovedClock, player: DevicePlayer) -> None:
    server = player.demo.authorization_server
    server.fail_next("device_authorization", status=503)
    assert player.authorize_device().status_code == 503
    device = player.device()
    server.fail_next("device_poll", status=502)
    assert player.poll(device).status_code == 502
    assert refusal(player.poll(device)) == WAITS, "the server does not count a poll that a fault answered"
    assert (server.count_requests("device_poll"), server.count_requests("token")) == (2, 0)


def test_the_pages_of_a_device_are_usable_with_a_form_and_load_nothing(player: DevicePlayer) -> None:
    answer = httpx.get(f"{player.issuer}/device")
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href|url\()", answer.text)
    assert "<p></p>" not in answer.text


def test_what_comes_from_outside_is_escaped_on_the_pages_of_a_device() -> None:
    page = consent_page(
        client=HOSTILE,
        account=HOSTILE,
        scope=[HOSTILE],
        resource=HOSTILE,
        request_id=HOSTILE,
        csrf_token=HOSTILE,
        user_code=HOSTILE,
    )
    page += user_code_page(HOSTILE) + decided_page(HOSTILE)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 9


@pytest.mark.browser
def test_a_person_with_a_phones_browser_types_the_code_and_approves(player: DevicePlayer) -> None:
    device = player.device()
    with chromium() as page:
        page.set_viewport_size({"width": 390, "height": 780})
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(message.text))
        page.goto(device["verification_uri"])
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_label("Code").fill(device["user_code"].lower())
        page.get_by_role("button", name="Continue").click()
        assert page.get_by_text(device["user_code"]).is_visible()
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("heading", name="Your device is connected").wait_for()
    assert trouble == []
    assert player.poll(device).status_code == 200

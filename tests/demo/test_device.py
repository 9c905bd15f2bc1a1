"""The demo's device flow follows RFC 8628, with a clock that only the test advances."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from hermes_mcp_auth_remote.demo.pages import consent_page, decided_page, user_code_page
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT
from tests.consent_form import ConsentRefused, approve_device, deny_device, fetch, read_consent_form
from tests.demo.manual_client import ManualClient, ManualClock, error_of
from tests.parts.authorization_server import Demo
from tests.parts.chromium import open_chromium

pytestmark = pytest.mark.slow

GRANT_TYPES = ["authorization_code", "refresh_token", DEVICE_GRANT]
HOSTILE = "\"><script>alert('x')</script>&amp;"
PENDING = (400, "authorization_pending")


class DeviceClient(ManualClient):
    def __init__(self, demo: Demo, **registration: object) -> None:
        super().__init__(demo, **{"grant_types": GRANT_TYPES, **registration})

    def authorize_device(self, **changes: str | None) -> httpx.Response:
        form: dict[str, str | None] = {"scope": "mcp:tools", "resource": self.demo.mcp_url, **changes}
        return self.post_form("/device_authorization", form)

    def start_device(self, **changes: str | None) -> dict[str, Any]:
        response = self.authorize_device(**changes)
        assert response.status_code == 200, response.text
        device: dict[str, Any] = response.json()
        return device

    def poll(self, device: dict[str, Any], **changes: str | None) -> httpx.Response:
        form: dict[str, str | None] = {
            "grant_type": DEVICE_GRANT,
            "device_code": device["device_code"],
            "resource": self.demo.mcp_url,
            **changes,
        }
        return self.post_form("/token", form)


@pytest.fixture
def client(demo: Demo) -> DeviceClient:
    demo.authorization_server.change_behaviour(with_device=True)
    return DeviceClient(demo)


@pytest.mark.parametrize("complete", [True, False])
def test_a_device_is_approved_by_link_or_by_a_typed_code(
    client: DeviceClient,
    complete: bool,  # noqa: FBT001
) -> None:
    response = client.authorize_device()
    assert response.headers["cache-control"] == "no-store"
    device = response.json()
    assert (device["expires_in"], device["interval"]) == (600, 5)
    assert re.fullmatch(r"[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}", device["user_code"])
    if complete:
        page = approve_device(device["verification_uri_complete"])
    else:
        page = approve_device(device["verification_uri"], f" {device['user_code'].lower().replace('-', ' ')}")
    assert "Your device is connected" in page
    tokens = client.poll(device).json()
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "mcp:tools")
    assert client.call_mcp(tokens["access_token"]).status_code != 401
    assert client.refresh(tokens["refresh_token"]).status_code == 200
    assert {device["device_code"], tokens["access_token"]} <= client.demo.authorization_server.minted_secrets
    assert [
        client.demo.authorization_server.count_requests(step)
        for step in ("device_authorization", "device_poll")
    ] == [1, 1]


def test_a_waiting_device_is_pending_and_early_polls_slow_it_down(
    clock: ManualClock, client: DeviceClient
) -> None:
    device = client.start_device()
    assert error_of(client.poll(device)) == PENDING
    clock.now += 4
    assert error_of(client.poll(device)) == (400, "slow_down")
    clock.now += 9
    assert error_of(client.poll(device)) == (400, "slow_down")
    approve_device(device["verification_uri_complete"])
    clock.now += 14
    assert error_of(client.poll(device)) == (400, "slow_down"), "also if the user approved it meanwhile"
    clock.now += 20
    assert client.poll(device).status_code == 200


def test_the_default_interval_is_five_seconds(clock: ManualClock, client: DeviceClient) -> None:
    client.demo.authorization_server.change_behaviour(device_interval_seconds=None)
    device = client.start_device()
    assert "interval" not in device
    assert error_of(client.poll(device)) == PENDING
    clock.now += 5
    assert error_of(client.poll(device)) == PENDING
    clock.now += 4
    assert error_of(client.poll(device)) == (400, "slow_down")


def test_a_code_expires_for_the_device_and_for_the_user(clock: ManualClock, client: DeviceClient) -> None:
    client.demo.authorization_server.change_behaviour(device_seconds=60)
    approved, waiting = client.start_device(), client.start_device()
    assert waiting["expires_in"] == 60
    clock.now += 59
    approve_device(approved["verification_uri_complete"])
    clock.now += 1
    assert error_of(client.poll(approved)) == (400, "expired_token")
    assert error_of(client.poll(waiting)) == (400, "expired_token")
    with pytest.raises(ConsentRefused, match="No device waits"):
        approve_device(waiting["verification_uri_complete"])


def test_a_device_code_is_valid_once_and_its_reuse_revokes_the_tokens(
    clock: ManualClock, client: DeviceClient
) -> None:
    device = client.start_device()
    approve_device(device["verification_uri_complete"])
    tokens = client.poll(device).json()
    clock.now += 5
    assert error_of(client.poll(device)) == (400, "invalid_grant")
    assert client.call_mcp(tokens["access_token"]).status_code == 401


def test_a_user_decides_once_and_a_denial_is_final(clock: ManualClock, client: DeviceClient) -> None:
    device = client.start_device()
    assert "was not connected" in deny_device(device["verification_uri"], device["user_code"])
    for _ in range(2):
        assert error_of(client.poll(device)) == (400, "access_denied")
        clock.now += 5
    with pytest.raises(ConsentRefused, match="No device waits"):
        approve_device(device["verification_uri_complete"])


def test_only_the_browser_with_the_page_can_decide_and_only_once(client: DeviceClient) -> None:
    device = client.start_device()
    url = device["verification_uri_complete"]
    _, headers, page = fetch("GET", url)
    action, fields = read_consent_form(page)
    assert device["user_code"] in page
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    form = urlencode({**fields, "decision": "approve"})
    decide = device["verification_uri"].removesuffix("/device") + action
    assert fetch("POST", decide, form)[0] == 400
    assert error_of(client.poll(device)) == PENDING
    _, headers, page = fetch("GET", url)
    form = urlencode({**read_consent_form(page)[1], "decision": "approve"})
    cookie = headers["set-cookie"].partition(";")[0]
    assert [fetch("POST", decide, form, cookie)[0] for _ in range(2)] == [200, 400]


def test_of_two_open_pages_the_first_decision_counts(client: DeviceClient) -> None:
    device = client.start_device()
    pages = [fetch("GET", device["verification_uri_complete"]) for _ in range(2)]
    statuses = []
    for (_, headers, page), decision in zip(pages, ("deny", "approve"), strict=True):
        form = urlencode({**read_consent_form(page)[1], "decision": decision})
        cookie = headers["set-cookie"].partition(";")[0]
        statuses.append(fetch("POST", device["verification_uri"], form, cookie)[0])
    assert statuses == [200, 400]
    assert error_of(client.poll(device)) == (400, "access_denied")


@pytest.mark.parametrize("code", ["", "BBBB-BBBB", "<script>alert(1)</script>", "x" * 5000])
def test_a_wrong_user_code_shows_the_form_without_the_typed_text(client: DeviceClient, code: str) -> None:
    status, _, page = fetch("GET", f"{client.issuer}/device?{urlencode({'user_code': code})}")
    assert status == 400
    assert "No device waits with that code" in page
    assert 'name="user_code"' in page
    assert not code or code not in page


def test_another_clients_device_code_is_unknown(client: DeviceClient) -> None:
    device = client.start_device()
    approve_device(device["verification_uri_complete"])
    other_client = DeviceClient(client.demo)
    assert error_of(other_client.poll(device)) == (400, "invalid_grant")
    assert error_of(client.poll(device, device_code="dc_made-up")) == (400, "invalid_grant")
    assert error_of(client.poll(device, device_code=None)) == (400, "invalid_request")
    assert client.poll(device).status_code == 200


def test_a_client_without_the_grant_is_unauthorized_at_both_endpoints(client: DeviceClient) -> None:
    device, older = client.start_device(), ManualClient(client.demo)
    assert error_of(older.post_form("/device_authorization", {"scope": "mcp:tools"})) == (
        400,
        "unauthorized_client",
    )
    form: dict[str, str | None] = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"]}
    assert error_of(older.post_form("/token", form)) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "mail:all"}, "invalid_scope"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"resource": None}, "invalid_target"),
    ],
)
def test_scope_and_resource_are_checked_as_for_a_code(
    client: DeviceClient, changes: dict[str, str | None], error: str
) -> None:
    assert error_of(client.authorize_device(**changes)) == (400, error)


def test_a_poll_with_a_wrong_resource_does_not_use_up_the_code(
    clock: ManualClock, client: DeviceClient
) -> None:
    device = client.start_device()
    approve_device(device["verification_uri_complete"])
    for resource in (None, "https://other.example/mcp"):
        assert error_of(client.poll(device, resource=resource)) == (400, "invalid_target")
        clock.now += 5
    assert client.poll(device).status_code == 200


def test_a_confidential_client_authenticates_for_its_device(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_device=True)
    client = DeviceClient(demo, token_endpoint_auth_method="client_secret_post")
    assert error_of(client.authorize_device()) == (401, "invalid_client")
    device = client.start_device(client_secret=client.registration["client_secret"])
    approve_device(device["verification_uri_complete"])
    assert error_of(client.poll(device)) == (401, "invalid_client")
    assert client.poll(device, client_secret=client.registration["client_secret"]).status_code == 200


def test_the_device_flow_is_off_by_default(demo: Demo) -> None:
    document = httpx.get(f"{demo.issuer}/.well-known/oauth-authorization-server").json()
    assert "device_authorization_endpoint" not in document
    assert DEVICE_GRANT not in document["grant_types_supported"]
    client = ManualClient(demo)
    assert error_of(client.register(grant_types=GRANT_TYPES)) == (400, "invalid_client_metadata")
    assert client.post_form("/device_authorization", {}).status_code == 404
    assert httpx.get(f"{demo.issuer}/device").status_code == 404
    form: dict[str, str | None] = {"grant_type": DEVICE_GRANT, "device_code": "x"}
    assert error_of(client.post_form("/token", form)) == (400, "unsupported_grant_type")


def test_options_change_the_device_response_and_the_metadata(client: DeviceClient) -> None:
    server, issuer = client.demo.authorization_server, client.issuer
    locations = ("rfc8414", "openid_appended")
    server.change_behaviour(
        with_verification_uri_complete=False, device_only_in_openid=True, metadata_locations=locations
    )
    assert "verification_uri_complete" not in client.start_device()
    plain = httpx.get(f"{issuer}/.well-known/oauth-authorization-server").json()
    openid = httpx.get(f"{issuer}/.well-known/openid-configuration").json()
    assert "device_authorization_endpoint" not in plain
    assert DEVICE_GRANT not in plain["grant_types_supported"]
    assert openid["device_authorization_endpoint"] == f"{issuer}/device_authorization"
    assert DEVICE_GRANT in openid["grant_types_supported"]
    server.change_behaviour(device_scopes=frozenset({"mcp:write"}), device_overrides={"user_code": None})
    assert error_of(client.authorize_device()) == (400, "invalid_scope")
    assert "user_code" not in client.start_device(scope="mcp:write")


def test_auto_approve_approves_when_the_url_is_opened(client: DeviceClient) -> None:
    client.demo.authorization_server.change_behaviour(auto_approve=True)
    device = client.start_device()
    assert error_of(client.poll(device)) == PENDING
    assert "Your device is connected" in approve_device(device["verification_uri_complete"])


def test_faults_and_counters_work_for_the_device_steps(clock: ManualClock, client: DeviceClient) -> None:
    server = client.demo.authorization_server
    server.fail_next("device_authorization", status=503)
    assert client.authorize_device().status_code == 503
    device = client.start_device()
    server.fail_next("device_poll", status=502)
    assert client.poll(device).status_code == 502
    assert error_of(client.poll(device)) == PENDING, "the server does not count a poll that a fault answered"
    assert (server.count_requests("device_poll"), server.count_requests("token")) == (2, 0)


def test_the_device_pages_allow_forms_and_load_no_resources(client: DeviceClient) -> None:
    response = httpx.get(f"{client.issuer}/device")
    assert "form-action 'self'" in response.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href|url\()", response.text)
    assert "<p></p>" not in response.text


def test_the_device_pages_escape_external_text() -> None:
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
def test_a_user_types_the_code_in_a_phone_browser_and_approves(client: DeviceClient) -> None:
    device = client.start_device()
    with open_chromium() as page:
        page.set_viewport_size({"width": 390, "height": 780})
        console_messages: list[str] = []
        page.on("console", lambda message: console_messages.append(message.text))
        page.goto(device["verification_uri"])
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_label("Code").fill(device["user_code"].lower())
        page.get_by_role("button", name="Continue").click()
        assert page.get_by_text(device["user_code"]).is_visible()
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("heading", name="Your device is connected").wait_for()
    assert console_messages == []
    assert client.poll(device).status_code == 200

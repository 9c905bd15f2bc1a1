"""Paste or device flow: the selected server and client, and the fallback after a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import DeviceAuthorizationError, PkceNotSupported, TimedOut
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.login_preparation import (
    LoginNonces,
    PreparedLogin,
    prepare_login,
    prepare_switch,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT
from hermes_mcp_auth_remote.values import Flow, Secret, Server, ServerOptions
from tests.oauth.parties import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, client, metadata
from tests.playbook import Play, play
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PRM = "https://mcp.example/.well-known/oauth-protected-resource/mcp"
OTHER = "https://other.example"
DEVICE = f"{ISSUER}/device_authorization"
WELL_KNOWN = "/.well-known/oauth-authorization-server"
CHANCE = LoginNonces(Secret(STATE), Secret(VERIFIER))
ANSWER = {
    "device_code": "d3vice-code",
    "user_code": "WDJB-MJHT",
    "verification_uri": f"{ISSUER}/device",
    "expires_in": 600,
}
WITH_GRANT = client(is_registered=True, client_id="held", document={"grant_types": [DEVICE_GRANT]})
REGISTERED = {"client_id": "new", "grant_types": ["authorization_code", DEVICE_GRANT]}


def preparing(
    flow: Flow = "auto",
    held: PreviousLogin | None = None,
    options: ServerOptions | None = None,
    issuers: tuple[str, ...] = (ISSUER,),
    **members: Any,
) -> Play[PreparedLogin]:
    """Script up to the first authorization server's metadata; the members override it."""
    server = Server("x", URL, options or ServerOptions())
    exchange = prepare_login(
        server, CHANCE, REDIRECT_URI, NOW, previous_login=held, challenge=Challenge((PRM,)), flow=flow
    )
    script = play(exchange)
    script.expects(f"GET {PRM}").answers(200, {"resource": URL, "authorization_servers": list(issuers)})
    script.expects(f"GET {issuers[0]}{WELL_KNOWN}")
    return script.answers(200, metadata(**members))


def with_code(script: Play[PreparedLogin]) -> PreparedLogin:
    prepared = script.expects(f"POST {DEVICE}").answers(200, ANSWER).returns()
    assert prepared.device_authorization is not None
    assert prepared.device_authorization.user_code == "WDJB-MJHT"
    assert not prepared.request.url, "a device login shows no authorization URL"
    return prepared


@covers("flow-choice", "device-grant")
def test_auto_takes_a_device_where_one_is_offered_and_registers_for_it() -> None:
    script = preparing(device_authorization_endpoint=DEVICE)
    script.expects(f"POST {ISSUER}/register").answers(201, REGISTERED)
    assert with_code(script).request.client.client_id == "new"


@covers("flow-choice")
@pytest.mark.parametrize("flow", ["paste", "loopback"])
def test_the_other_flows_ask_for_no_device_and_not_one_request_more(flow: Flow) -> None:
    script = preparing(flow, device_authorization_endpoint=DEVICE)
    script.expects(f"POST {ISSUER}/register").answers(201, REGISTERED)
    assert script.returns().device_authorization is None


@covers("flow-choice")
def test_auto_costs_a_server_without_devices_not_one_request() -> None:
    script = preparing()
    script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
    assert script.returns().request.url


@covers("device-endpoint", "flow-choice")
@pytest.mark.parametrize(
    ("flow", "members"),
    [
        ("device", {}),
        ("auto", {"grant_types_supported": ["authorization_code", DEVICE_GRANT]}),
        ("auto", {"scopes_supported": ["openid"]}),
    ],
    ids=["the device flow is configured", "the grant is listed", "openid is listed"],
)
def test_quirk_46_the_openid_document_is_looked_at_where_it_may_say_more(
    flow: Flow, members: dict[str, Any]
) -> None:
    script = preparing(flow, **members)
    script.expects(f"GET {ISSUER}/.well-known/openid-configuration")
    script.answers(200, metadata(device_authorization_endpoint=DEVICE, **members))
    script.expects(f"POST {ISSUER}/register").answers(201, REGISTERED)
    with_code(script)


@covers("flow-choice")
def test_of_several_authorization_servers_auto_takes_the_one_with_devices() -> None:
    script = preparing(issuers=(OTHER, "https://gone.example", ISSUER), issuer=OTHER)
    script.expects(f"GET https://gone.example{WELL_KNOWN}").fails(TimedOut("gone.example was too slow."))
    script.expects(f"GET {ISSUER}{WELL_KNOWN}")
    script.answers(200, metadata(device_authorization_endpoint=DEVICE))
    script.expects(f"POST {ISSUER}/register").answers(201, REGISTERED)
    assert with_code(script).authorization_server.issuer == ISSUER


@covers("flow-choice")
def test_an_operators_authorization_server_is_the_only_one_that_is_asked() -> None:
    options = ServerOptions(authorization_server=ISSUER, client_id="mine")
    script = preparing("device", None, options, issuers=(ISSUER, OTHER))
    script.expects(f"GET {ISSUER}/.well-known/openid-configuration").answers(404)
    script.raises(DeviceAuthorizationError, "offers no device flow")


@covers("device-grant")
def test_quirk_23_a_held_client_without_the_grant_is_replaced_before_it_is_refused() -> None:
    held = PreviousLogin(client(is_registered=True, client_id="held"), ISSUER)
    script = preparing(held=held, device_authorization_endpoint=DEVICE)
    script.expects(f"POST {ISSUER}/register").answers(201, REGISTERED)
    with_code(script)


@covers("stale-client")
@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client"])
def test_quirk_19_a_held_client_that_is_refused_is_replaced_once(error: str) -> None:
    script = preparing(held=PreviousLogin(WITH_GRANT, ISSUER), device_authorization_endpoint=DEVICE)
    script.expects(f"POST {DEVICE}").answers(401, {"error": error})
    script.expects(f"POST {ISSUER}/register").answers(201, REGISTERED)
    assert with_code(script).request.client.client_id == "new"


@covers("device-scope", "flow-choice")
@pytest.mark.parametrize("error", ["invalid_scope", "unauthorized_client", "server_error"])
def test_quirk_47_a_device_that_is_refused_leaves_pasting_in_the_same_login(error: str) -> None:
    options = ServerOptions(client_id="mine")
    for flow in ("auto", "device"):
        script = preparing(flow, None, options, device_authorization_endpoint=DEVICE)
        script.expects(f"POST {DEVICE}").answers(400, {"error": error})
        if flow == "device":
            script.raises(DeviceAuthorizationError, error)
        else:
            prepared = script.returns()
            assert prepared.device_authorization is None
            assert prepared.request.url


@covers("flow-choice")
def test_a_device_endpoint_that_is_broken_leaves_pasting_too() -> None:
    options = ServerOptions(client_id="mine")
    script = preparing("auto", None, options, device_authorization_endpoint=DEVICE)
    script.expects(f"POST {DEVICE}").fails(TimedOut("as.example was too slow."))
    assert script.returns().request.url


@covers("device-grant")
def test_a_client_that_may_not_use_devices_after_all_pastes() -> None:
    script = preparing(device_authorization_endpoint=DEVICE)
    script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new", "grant_types": ["x"]})
    assert script.returns().device_authorization is None


@covers("pkce-required")
def test_pasting_after_a_device_was_refused_needs_pkce() -> None:
    options = ServerOptions(client_id="mine")
    members: dict[str, Any] = {"code_challenge_methods_supported": None}
    script = preparing("auto", None, options, device_authorization_endpoint=DEVICE, **members)
    script.expects(f"POST {DEVICE}").answers(400, {"error": "invalid_scope"})
    script.raises(PkceNotSupported, "PKCE")


@covers("extra-parameters")
def test_an_operators_parameters_go_to_the_device_endpoint_as_well() -> None:
    options = ServerOptions(client_id="mine", authorize_params={"audience": "mcp"})
    script = preparing("device", None, options, device_authorization_endpoint=DEVICE)
    script.expects(f"POST {DEVICE}", form={"audience": "mcp", "client_id": "mine", "resource": URL})
    assert script.answers(200, ANSWER).returns().device_authorization is not None


@covers("device-switch")
def test_changing_over_to_pasting_makes_a_request_of_its_own_and_pushes_it() -> None:
    script = preparing("auto", PreviousLogin(WITH_GRANT, ISSUER), device_authorization_endpoint=DEVICE)
    before = with_code(script)
    chance = LoginNonces(Secret("another-state"), Secret(VERIFIER[::-1]))
    after = play(prepare_switch(Server("x", URL), before, chance, to_device=False)).returns()
    assert (after.device_authorization, after.request.state) == (None, Secret("another-state"))
    assert "another-state" in after.request.url
    again = play(prepare_switch(Server("x", URL), after, CHANCE, to_device=True))
    assert with_code(again).request.scope == before.request.scope

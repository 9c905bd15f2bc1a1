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
from tests.exchange_script import ExchangeScript, script_exchange
from tests.oauth.builders import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, client, metadata
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PRM = "https://mcp.example/.well-known/oauth-protected-resource/mcp"
OTHER_ISSUER = "https://other.example"
DEVICE_ENDPOINT = f"{ISSUER}/device_authorization"
WELL_KNOWN = "/.well-known/oauth-authorization-server"
NONCES = LoginNonces(Secret(STATE), Secret(VERIFIER))
DEVICE_RESPONSE = {
    "device_code": "d3vice-code",
    "user_code": "WDJB-MJHT",
    "verification_uri": f"{ISSUER}/device",
    "expires_in": 600,
}
DEVICE_CLIENT = client(is_registered=True, client_id="held", document={"grant_types": [DEVICE_GRANT]})
REGISTRATION_RESPONSE = {"client_id": "new", "grant_types": ["authorization_code", DEVICE_GRANT]}


def script_preparation(
    flow: Flow = "auto",
    previous_login: PreviousLogin | None = None,
    options: ServerOptions | None = None,
    issuers: tuple[str, ...] = (ISSUER,),
    **members: Any,
) -> ExchangeScript[PreparedLogin]:
    """Script up to the first authorization server's metadata; the members override it."""
    server = Server("x", URL, options or ServerOptions())
    exchange = prepare_login(
        server,
        NONCES,
        REDIRECT_URI,
        NOW,
        previous_login=previous_login,
        challenge=Challenge((PRM,)),
        flow=flow,
    )
    script = script_exchange(exchange)
    script.expects(f"GET {PRM}").responds(200, {"resource": URL, "authorization_servers": list(issuers)})
    script.expects(f"GET {issuers[0]}{WELL_KNOWN}")
    return script.responds(200, metadata(**members))


def expect_device_code(script: ExchangeScript[PreparedLogin]) -> PreparedLogin:
    prepared = script.expects(f"POST {DEVICE_ENDPOINT}").responds(200, DEVICE_RESPONSE).returns()
    assert prepared.device_authorization is not None
    assert prepared.device_authorization.user_code == "WDJB-MJHT"
    assert not prepared.request.url, "a device login shows no authorization URL"
    return prepared


@covers("flow-choice", "device-grant")
def test_auto_uses_the_device_flow_if_the_server_supports_it() -> None:
    script = script_preparation(device_authorization_endpoint=DEVICE_ENDPOINT)
    script.expects(f"POST {ISSUER}/register").responds(201, REGISTRATION_RESPONSE)
    assert expect_device_code(script).request.client.client_id == "new"


@covers("flow-choice")
@pytest.mark.parametrize("flow", ["paste", "loopback"])
def test_the_other_flows_send_no_device_request(flow: Flow) -> None:
    script = script_preparation(flow, device_authorization_endpoint=DEVICE_ENDPOINT)
    script.expects(f"POST {ISSUER}/register").responds(201, REGISTRATION_RESPONSE)
    assert script.returns().device_authorization is None


@covers("flow-choice")
def test_auto_sends_no_extra_request_to_a_server_without_the_device_flow() -> None:
    script = script_preparation()
    script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
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
def test_quirk_46_the_openid_document_is_read_if_it_may_name_a_device_endpoint(
    flow: Flow, members: dict[str, Any]
) -> None:
    script = script_preparation(flow, **members)
    script.expects(f"GET {ISSUER}/.well-known/openid-configuration")
    script.responds(200, metadata(device_authorization_endpoint=DEVICE_ENDPOINT, **members))
    script.expects(f"POST {ISSUER}/register").responds(201, REGISTRATION_RESPONSE)
    expect_device_code(script)


@covers("flow-choice")
def test_auto_selects_the_authorization_server_with_the_device_flow() -> None:
    script = script_preparation(issuers=(OTHER_ISSUER, "https://gone.example", ISSUER), issuer=OTHER_ISSUER)
    script.expects(f"GET https://gone.example{WELL_KNOWN}").fails(TimedOut("gone.example was too slow."))
    script.expects(f"GET {ISSUER}{WELL_KNOWN}")
    script.responds(200, metadata(device_authorization_endpoint=DEVICE_ENDPOINT))
    script.expects(f"POST {ISSUER}/register").responds(201, REGISTRATION_RESPONSE)
    assert expect_device_code(script).authorization_server.issuer == ISSUER


@covers("flow-choice")
def test_only_the_configured_authorization_server_is_queried() -> None:
    options = ServerOptions(authorization_server=ISSUER, client_id="mine")
    script = script_preparation("device", None, options, issuers=(ISSUER, OTHER_ISSUER))
    script.expects(f"GET {ISSUER}/.well-known/openid-configuration").responds(404)
    script.raises(DeviceAuthorizationError, "offers no device flow")


@covers("device-grant")
def test_quirk_23_a_stored_client_without_the_device_grant_is_registered_again() -> None:
    previous_login = PreviousLogin(client(is_registered=True, client_id="held"), ISSUER)
    script = script_preparation(previous_login=previous_login, device_authorization_endpoint=DEVICE_ENDPOINT)
    script.expects(f"POST {ISSUER}/register").responds(201, REGISTRATION_RESPONSE)
    expect_device_code(script)


@covers("stale-client")
@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client"])
def test_quirk_19_a_refused_stored_client_is_registered_again_once(error: str) -> None:
    script = script_preparation(
        previous_login=PreviousLogin(DEVICE_CLIENT, ISSUER), device_authorization_endpoint=DEVICE_ENDPOINT
    )
    script.expects(f"POST {DEVICE_ENDPOINT}").responds(401, {"error": error})
    script.expects(f"POST {ISSUER}/register").responds(201, REGISTRATION_RESPONSE)
    assert expect_device_code(script).request.client.client_id == "new"


@covers("device-scope", "flow-choice")
@pytest.mark.parametrize("error", ["invalid_scope", "unauthorized_client", "server_error"])
def test_quirk_47_auto_falls_back_to_pasting_if_the_device_flow_is_refused(error: str) -> None:
    options = ServerOptions(client_id="mine")
    for flow in ("auto", "device"):
        script = script_preparation(flow, None, options, device_authorization_endpoint=DEVICE_ENDPOINT)
        script.expects(f"POST {DEVICE_ENDPOINT}").responds(400, {"error": error})
        if flow == "device":
            script.raises(DeviceAuthorizationError, error)
        else:
            prepared = script.returns()
            assert prepared.device_authorization is None
            assert prepared.request.url


@covers("flow-choice")
def test_auto_falls_back_to_pasting_if_the_device_endpoint_times_out() -> None:
    options = ServerOptions(client_id="mine")
    script = script_preparation("auto", None, options, device_authorization_endpoint=DEVICE_ENDPOINT)
    script.expects(f"POST {DEVICE_ENDPOINT}").fails(TimedOut("as.example was too slow."))
    assert script.returns().request.url


@covers("device-grant")
def test_auto_falls_back_to_pasting_if_no_device_grant_was_registered() -> None:
    script = script_preparation(device_authorization_endpoint=DEVICE_ENDPOINT)
    script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new", "grant_types": ["x"]})
    assert script.returns().device_authorization is None


@covers("pkce-required")
def test_pasting_after_a_refused_device_flow_requires_pkce() -> None:
    options = ServerOptions(client_id="mine")
    members: dict[str, Any] = {"code_challenge_methods_supported": None}
    script = script_preparation(
        "auto", None, options, device_authorization_endpoint=DEVICE_ENDPOINT, **members
    )
    script.expects(f"POST {DEVICE_ENDPOINT}").responds(400, {"error": "invalid_scope"})
    script.raises(PkceNotSupported, "PKCE")


@covers("extra-parameters")
def test_configured_parameters_are_sent_to_the_device_endpoint() -> None:
    options = ServerOptions(client_id="mine", authorize_params={"audience": "mcp"})
    script = script_preparation("device", None, options, device_authorization_endpoint=DEVICE_ENDPOINT)
    script.expects(f"POST {DEVICE_ENDPOINT}", form={"audience": "mcp", "client_id": "mine", "resource": URL})
    assert script.responds(200, DEVICE_RESPONSE).returns().device_authorization is not None


@covers("device-switch")
def test_switching_to_pasting_creates_a_new_authorization_request() -> None:
    script = script_preparation(
        "auto", PreviousLogin(DEVICE_CLIENT, ISSUER), device_authorization_endpoint=DEVICE_ENDPOINT
    )
    device_login = expect_device_code(script)
    nonces = LoginNonces(Secret("another-state"), Secret(VERIFIER[::-1]))
    paste_login = script_exchange(
        prepare_switch(Server("x", URL), device_login, nonces, to_device=False)
    ).returns()
    assert (paste_login.device_authorization, paste_login.request.state) == (None, Secret("another-state"))
    assert "another-state" in paste_login.request.url
    switched_back = script_exchange(prepare_switch(Server("x", URL), paste_login, NONCES, to_device=True))
    assert expect_device_code(switched_back).request.scope == device_login.request.scope

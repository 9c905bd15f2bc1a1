"""The functions of the oauth package against the demo's servers, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import httpx
import pytest

from hermes_mcp_auth_remote.demo import servers
from hermes_mcp_auth_remote.errors import AuthorizationDenied, TokenError
from hermes_mcp_auth_remote.oauth.authorization import (
    AuthorizationRequest,
    authorization_request,
    push_request,
    select_resource,
    select_scope,
)
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.oauth.client import register_client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, discover_metadata
from hermes_mcp_auth_remote.oauth.redirect import read_authorization_response
from hermes_mcp_auth_remote.oauth.token import exchange_code, refresh_tokens
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.values import Secret
from tests.consent_form import approve, deny
from tests.demo.manual_client import REDIRECT_URI, VERIFIER
from tests.exchange_script import headers_of
from tests.parts import authorization_server
from tests.parts.authorization_server import Behaviour

pytestmark = pytest.mark.slow

T = TypeVar("T")


def run_exchange(steps: Exchange[T]) -> T:
    try:
        request = next(steps)
        while True:
            response = httpx.request(
                request.method, request.url, headers=headers_of(request), content=request.body
            )
            headers = tuple((name.lower(), value) for name, value in response.headers.multi_items())
            request = steps.send(Response(response.status_code, headers, response.content))
    except StopIteration as stop:
        result: T = stop.value
        return result


def start_authorization(demo: servers.Demo) -> tuple[AuthorizationServer, AuthorizationRequest]:
    response = httpx.get(demo.ping_url)
    challenge = read_challenge(response.headers.get_list("www-authenticate"))
    discovery = run_exchange(discover_metadata(demo.ping_url, challenge))
    server = discovery.authorization_server
    client = run_exchange(register_client(server, REDIRECT_URI, client_name="Ours"))
    request = authorization_request(
        server,
        client,
        redirect_uri=REDIRECT_URI,
        state=Secret("s" * 43),
        code_verifier=Secret(VERIFIER),
        scope=select_scope(discovery, challenge),
        resource=select_resource(demo.ping_url, discovery.protected_resource),
    )
    return server, run_exchange(push_request(server, request))


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(),
        Behaviour(with_par=True, require_par=True),
        Behaviour(auth_methods=("client_secret_basic",)),
        Behaviour(auth_methods=("client_secret_post",), form_encoded_tokens=True),
        Behaviour(issuer_path="/tenant", metadata_locations=("openid_appended",)),
        Behaviour(resource_identifier="origin"),
        Behaviour(
            resource_metadata_locations=("root",), challenge_names_metadata=False, challenge_names_scope=False
        ),
    ],
    ids=["strict", "par", "basic", "post and form", "issuer with a path", "origin", "root metadata"],
)
@pytest.mark.parametrize(
    "serve", [servers.serve_demo, authorization_server.serve_demo], ids=["of the command", "with faults"]
)
def test_a_login_from_discovery_to_refresh(
    behaviour: Behaviour, serve: Callable[[Behaviour], AbstractContextManager[servers.Demo]]
) -> None:
    with serve(behaviour) as demo:
        server, request = start_authorization(demo)
        response = read_authorization_response(approve(request.url), request)
        tokens = run_exchange(exchange_code(response, request, 0.0))
        assert (tokens.account, tokens.expires_at) == ("ada@example.com", 3600.0)
        refreshed = run_exchange(
            refresh_tokens(server, request.client, tokens, 0.0, resource=request.resource)
        )
        ping_response = httpx.get(demo.ping_url, headers={"Authorization": refreshed.authorization_header})
        assert ping_response.json()["pong"] is True
        with pytest.raises(TokenError):
            run_exchange(exchange_code(response, request, 0.0))


def test_a_denied_login_raises_authorization_denied() -> None:
    with authorization_server.serve_demo() as demo:
        _, request = start_authorization(demo)
        with pytest.raises(AuthorizationDenied) as caught:
            read_authorization_response(deny(request.url), request)
        assert caught.value.error == "access_denied"

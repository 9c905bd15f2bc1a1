"""Quirks 49 to 66: deviations of fifteen authorization servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    AuthorizationRequired,
    ClientIdRequired,
    ClientRefused,
    DiscoveryFailed,
    IssuerMismatch,
    MalformedResponse,
    PasteRefused,
    RedirectRefused,
    RegistrationError,
    TokenError,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret
from tests.parts.authorization_server import Behaviour, serve_demo
from tests.quirks.harness import QuirkHarness, quirk_case
from tests.service.helpers import TERMINAL

SECRET = "s3cret-of-a-public-client"


def other_process(harness: QuirkHarness) -> AuthService:
    return AuthService(harness.home, clock=harness.clock)


def demand_scope(harness: QuirkHarness, scope: str | None) -> None:
    """Answer a call with 403 insufficient_scope, in a process that cannot prompt."""
    named = "" if scope is None else f', scope="{scope}"'
    service = other_process(harness)
    header = asyncio.run(service.session(harness.server).header())
    with pytest.raises(AuthorizationRequired):
        asyncio.run(
            service.session(harness.server).handle_challenge(
                header, 403, [f'Bearer error="insufficient_scope"{named}']
            )
        )


def requested_scope(login: Login) -> set[str]:
    return set(login.request.scope or ())


@quirk_case(65, "403 insufficient_scope: a later login in any process requests the old and the new scopes")
def step_up_in_another_process(harness: QuirkHarness) -> None:
    harness.log_in()
    demand_scope(harness, "mcp:tools mcp:write")
    connection = other_process(harness).blocking.connection(harness.server)
    assert connection is not None
    assert connection.needed_scope == frozenset({"mcp:write"})
    harness.service = other_process(harness)
    login = harness.start_login()
    assert requested_scope(login) >= {"mcp:tools", "mcp:write"}
    assert harness.complete_login(login).needed_scope is None
    assert "mcp:write" not in requested_scope(harness.start_login())
    # The operator's cap still applies. After a refresh, the server's demand for the scope is still stored.
    harness.log_in()
    demand_scope(harness, "mcp:write")
    harness.clock.now += 3600
    harness.authorization_header()
    harness.configure(scope_cap=frozenset({"mcp:tools"}))
    assert requested_scope(harness.start_login()) == {"mcp:tools"}
    harness.configure()
    assert "mcp:write" in requested_scope(harness.start_login())


FORGOTTEN_LOCATIONS: tuple[Callable[[QuirkHarness], str], ...] = (
    lambda harness: f"{harness.demo.issuer}/error?error=invalid_client&error_description=x",
    lambda _: "/oauth/error?error=unauthorized_client",
    lambda harness: f"{harness.demo.issuer}/#/error?error=invalid_client",
)


@quirk_case(49, "the server forgot the client and says so late: another one is registered, once")
def forgotten_late(harness: QuirkHarness) -> None:
    harness.log_in()
    for count, location in enumerate(FORGOTTEN_LOCATIONS, 2):
        harness.demo.authorization_server.fail_next(
            "authorization", status=302, headers={"Location": location(harness)}
        )
        harness.start_login()
        assert len(harness.requests_of("registration")) == count
    harness.demo.authorization_server.fail_next(
        "authorization", status=302, headers={"Location": "/login?next=error%3Dinvalid_client"}
    )
    login = harness.start_login()
    count = len(harness.requests_of("registration"))
    assert count == 1 + len(FORGOTTEN_LOCATIONS), "a sign-in page says nothing about the client"

    # The server shows a sign-in page, and then its error page. The user pastes the error page's address.
    page = f"{harness.demo.issuer}/error?error=invalid_client&error_description=Client+not+found"
    with pytest.raises(PasteRefused) as refused:
        harness.complete_login(login, page)
    assert "new link" in refused.value.advice
    retried = harness.service.blocking.login(login.id)
    assert (retried.status, retried.request.client == login.request.client) == ("waiting", False)
    assert len(harness.requests_of("registration")) == count + 1
    with pytest.raises(PasteRefused) as refused:
        harness.complete_login(retried, page)
    assert "begin another" in refused.value.advice
    assert len(harness.requests_of("registration")) == count + 1
    harness.complete_login(retried)

    # The user does not answer: the next login registers another client, and the one after it does not.
    ignored = harness.start_login()
    harness.clock.now += 601
    assert harness.service.blocking.login(ignored.id).status == "expired"
    second = harness.start_login()
    assert second.request.client.client_id != ignored.request.client.client_id
    asyncio.run(harness.service.cancel(second.id))
    third = harness.start_login()
    assert third.request.client.client_id == second.request.client.client_id
    assert len(harness.requests_of("registration")) == count + 2
    harness.complete_login(third)

    # The same the next day, when the records of ended logins are removed.
    ignored = harness.start_login()
    purge_login_records(harness)
    replacement = harness.start_login()
    assert replacement.request.client.client_id != ignored.request.client.client_id
    purge_login_records(harness)
    next_login = harness.start_login()
    assert next_login.request.client.client_id == replacement.request.client.client_id
    # The tokens still belong to the old client.
    assert harness.authorization_header().startswith("Bearer ")
    assert stored_client_id(harness) == ignored.request.client.client_id
    harness.complete_login(next_login)
    assert stored_client_id(harness) == replacement.request.client.client_id
    assert harness.start_login().request.client.client_id == replacement.request.client.client_id


def stored_client_id(harness: QuirkHarness) -> str | None:
    return None if harness.credentials.client is None else harness.credentials.client.client_id


def purge_login_records(harness: QuirkHarness) -> None:
    """Let a day pass, in which a login of another server removes the records of ended logins."""
    harness.clock.now += 86_400
    other_server = type(harness.server)(f"other{harness.clock.now:.0f}", harness.server.url)
    login = asyncio.run(other_process(harness).start_login(other_server, TERMINAL))
    assert [it.id for it in harness.service.blocking.logins()] == [login.id]
    # Another process starts with nothing in memory.
    harness.service = other_process(harness)


@quirk_case(50, "registered as none, with a secret: the other method is tried once, and remembered")
def secret_of_a_public_client(harness: QuirkHarness) -> None:
    # This server refuses the secret that it sends.
    harness.change_behaviour(registration_overrides={"client_secret": SECRET})
    harness.log_in()
    assert [request.status for request in harness.requests_of("token")] == [401, 200]
    harness.clock.now += 3600
    harness.authorization_header()
    [refresh] = harness.requests_of("refresh")
    assert (refresh.status, "client_secret" in refresh.form) == (200, False)
    # This server requires the secret that it sends.
    harness.change_behaviour(
        auth_methods=("client_secret_post",), registration_overrides={"token_endpoint_auth_method": "none"}
    )
    harness.server = type(harness.server)("other", harness.server.url)
    harness.log_in()
    harness.clock.now += 3600
    harness.authorization_header()
    assert [request.status for request in harness.requests_of("refresh")] == [200, 200]
    # Basic without a secret is read as `none`; a method that needs a key is refused before the login starts.
    harness.change_behaviour(
        auth_methods=("none",), registration_overrides={"token_endpoint_auth_method": "client_secret_basic"}
    )
    harness.server = type(harness.server)("third", harness.server.url)
    harness.log_in()
    harness.change_behaviour(registration_overrides={"token_endpoint_auth_method": "tls_client_auth"})
    harness.server = type(harness.server)("fourth", harness.server.url)
    with pytest.raises(RegistrationError) as refused:
        harness.start_login()
    assert "tls_client_auth" not in f"{refused.value} {refused.value.advice}"


@quirk_case(51, "Basic is refused with 403 unauthorized_client: post is tried once, and remembered")
def basic_refused_with_403(harness: QuirkHarness) -> None:
    server = harness.demo.authorization_server
    client = server.add_client("http://127.0.0.1:52765/callback", auth_method="client_secret_post")
    assert client.secret is not None
    harness.configure(client_id=client.client_id, client_secret=Secret(client.secret))
    refusal = json.dumps({"error": "unauthorized_client"})
    server.fail_next("token", status=403, body=refusal, headers={"Content-Type": "application/json"})
    harness.log_in()
    assert ["authorization" in request.headers for request in harness.requests_of("token")] == [True, False]
    harness.clock.now += 3600
    harness.authorization_header()
    [refresh] = harness.requests_of("refresh")
    assert "authorization" not in refresh.headers
    server.fail_next("token", status=403, body=refusal, times=None)
    with pytest.raises(TokenError) as refused:
        harness.log_in()
    assert "oauth.token_endpoint_auth_method" in refused.value.advice


@quirk_case(52, "the provider's reason is shown as its own words, and `openid` brings a nonce")
def reason_of_the_provider(harness: QuirkHarness) -> None:
    login = harness.start_login()
    state = login.request.state.reveal()
    error = f"error=invalid_request&error_description=nonce+required&iss={quote(harness.demo.issuer)}"
    with pytest.raises(AuthorizationDenied) as denied:
        harness.complete_login(login, f"{login.request.redirect_uri}?{error}&state={state}")
    assert denied.value.server_message == "nonce required"
    assert "nonce" not in f"{denied.value} {denied.value.advice}"
    harness.configure(scope=frozenset({"openid", "mcp:tools"}))
    first, second = (httpx.URL(harness.start_login().authorization_url) for _ in range(2))
    assert len({first.params["nonce"], second.params["nonce"]}) == 2
    harness.configure()
    assert "nonce" not in httpx.URL(harness.start_login().authorization_url).params


@quirk_case(53, "an error comes back without a state: the reason is shown, and the scope left out once")
def error_without_state(harness: QuirkHarness) -> None:
    login = harness.start_login()
    paste = "?error=invalid_scope&error_description=The following scopes are invalid: mcp:tools"
    with pytest.raises(PasteRefused):
        asyncio.run(harness.service.complete_login(login.id, paste, login.origin, is_pasted=False))
    assert harness.service.blocking.login(login.id).request == login.request, "any web page may send that"
    with pytest.raises(PasteRefused) as refused:
        harness.complete_login(login, paste)
    assert refused.value.server_message == "The following scopes are invalid: mcp:tools"
    assert "mcp:tools" not in f"{refused.value} {refused.value.advice}"
    retried = harness.service.blocking.login(login.id)
    assert requested_scope(retried) == {"offline_access"}
    with pytest.raises(PasteRefused):
        harness.complete_login(retried, paste)
    assert requested_scope(harness.service.blocking.login(login.id)) == {"offline_access"}
    harness.complete_login(retried)


@quirk_case(54, "well-known places answer 200 with an HTML page: absent")
def pages_for_every_path(harness: QuirkHarness) -> None:
    page: dict[str, Any] = {"body": "<!doctype html>", "headers": {"Content-Type": "text/html"}}
    server = harness.demo.authorization_server
    harness.change_behaviour(challenge_names_metadata=False, resource_metadata_locations=("root",))
    server.fail_next("protected_resource_metadata", **page)
    server.fail_next("authorization_server_metadata", **page)
    harness.change_behaviour(metadata_locations=("openid_inserted",))
    harness.log_in()
    # Without protected resource metadata, the older rules apply: use the default endpoints of the same
    # origin.
    with serve_demo(Behaviour(metadata_locations=()), separate_origins=False) as demo:
        harness.demo, harness.server = demo, type(harness.server)("older", demo.ping_url)
        demo.authorization_server.change_behaviour(challenge_names_metadata=False)
        demo.authorization_server.fail_next("protected_resource_metadata", times=None, **page)
        demo.authorization_server.fail_next("authorization_server_metadata", times=None, **page)
        assert harness.start_login().authorization_server.uses_default_endpoints


@quirk_case(55, "a redirect carries the challenge, or another scheme does: still a challenge")
def challenge_in_a_redirect(harness: QuirkHarness) -> None:
    harness.change_behaviour(resource_metadata_locations=("path",))
    metadata = harness.demo.resources.metadata_url(urlsplit(harness.server.url).path)
    for status, scheme in ((302, "Cloudflare-Access"), (302, "Bearer"), (401, "Access")):
        headers = {"WWW-Authenticate": f'{scheme} resource_metadata="{metadata}"'}
        if status == 302:
            headers["Location"] = "https://login.example/page"
        harness.demo.authorization_server.fail_next("ping", status=status, headers=headers)
        harness.start_login()


@quirk_case(56, "a firewall answers 403 everywhere: no metadata is guessed; configured headers pass it")
def firewall(harness: QuirkHarness) -> None:
    server = harness.demo.authorization_server
    server.fail_next("ping", status=403, body="<html>Forbidden")
    server.fail_next("protected_resource_metadata", status=403, times=None)
    server.fail_next("authorization_server_metadata", status=403, times=None)
    with pytest.raises(ClientRefused) as refused:
        harness.start_login()
    assert "oauth.user_agent" in refused.value.advice
    assert "headers" in refused.value.advice
    assert harness.requests_of("registration") == []
    server.clear_faults()
    harness.server = type(harness.server)(
        "notes", harness.server.url, headers={"X-Pass": Secret("pass-the-firewall")}
    )
    server.requests.clear()
    harness.log_in()
    sent = {request.step: "x-pass" in request.headers for request in server.requests}
    assert sent["ping"]
    assert sent["protected_resource_metadata"]
    assert not sent["token"], "the authorization server has another origin"
    assert not sent["registration"]
    with serve_demo(separate_origins=False) as demo:
        harness.server = type(harness.server)("one", demo.ping_url, headers=harness.server.headers)
        harness.demo = demo
        harness.log_in()
        passes = {
            request.headers.get("x-pass")
            for request in demo.authorization_server.requests
            if request.step not in {"authorization", "consent"}
        }
        assert passes == {"pass-the-firewall"}


@quirk_case(57, "429 at the code exchange says when to try again; a refused push names resource: false")
def retry_after_and_push(harness: QuirkHarness) -> None:
    server = harness.demo.authorization_server
    for value, text in (("30", "in 30 seconds"), ("Wed, 21 Oct 2026 07:28:00 GMT", "after 07:28 UTC")):
        server.fail_next("token", status=429, headers={"Retry-After": value})
        with pytest.raises(MalformedResponse) as limited:
            harness.log_in()
        assert text in limited.value.advice
    harness.change_behaviour(with_par=True, require_par=True)
    server.fail_next("pushed_request", status=403)
    with pytest.raises(TokenError) as refused:
        harness.start_login()
    assert "403" in str(refused.value)
    assert "oauth.resource: false" in refused.value.advice


@quirk_case(58, "one grant per client: registered for the device grant alone; the endpoint is an option")
def one_grant_per_client(harness: QuirkHarness) -> None:
    harness.change_behaviour(with_device=True)
    refusal = json.dumps(
        {"error": "invalid_client_metadata", "error_description": "one grant type per client"}
    )
    server = harness.demo.authorization_server
    server.fail_next("registration", status=400, body=refusal)
    login = harness.start_login("device")
    assert login.poll_state is not None
    document = json.loads(harness.requests_of("registration")[-1].body)
    assert document["grant_types"] == ["urn:ietf:params:oauth:grant-type:device_code"]
    # This client cannot use a paste login. So the switch of the flow registers a client that can.
    switched = asyncio.run(harness.service.switch_flow(login.id, "paste"))
    harness.complete_login(switched)
    endpoint = f"{harness.demo.issuer}/device_authorization"
    harness.change_behaviour(device_only_in_openid=True)
    harness.configure(device_authorization_endpoint=endpoint)
    assert harness.start_login("device").poll_state is not None


@quirk_case(59, "a client made by hand has one redirect URI: the advice and each login name the same one")
def one_redirect_uri(harness: QuirkHarness) -> None:
    harness.change_behaviour(with_registration=False)
    advised: set[str] = set()
    for name in ("notes", "notes", "other"):
        harness.server = type(harness.server)(name, harness.server.url)
        with pytest.raises(ClientIdRequired) as needed:
            harness.start_login()
        advised.add(needed.value.advice)
    [advice] = advised
    client = harness.demo.authorization_server.add_client("http://127.0.0.1:52765/callback")
    assert client.redirect_uris[0] in advice
    harness.configure(client_id=client.client_id)
    assert harness.start_login().request.redirect_uri == client.redirect_uris[0]
    harness.log_in()
    harness.configure(client_id=client.client_id, redirect_port=4321)
    assert urlsplit(harness.start_login().request.redirect_uri).port == 4321


@quirk_case(60, "several authorization servers are listed: the first that lets this client log in is used")
def several_authorization_servers(harness: QuirkHarness) -> None:
    with serve_demo() as first:
        issuers = [first.issuer, harness.demo.issuer]
        harness.change_behaviour(resource_overrides={"authorization_servers": issuers})
        unsuitable: tuple[dict[str, object], ...] = (
            {"with_registration": False},
            {"pkce_advertised": False},
            {"metadata_overrides": {"grant_types_supported": ["client_credentials"]}},
        )
        for changes in unsuitable:
            first.authorization_server.change_behaviour(**changes)
            assert harness.start_login().request.issuer == harness.demo.issuer
            first.authorization_server.change_behaviour(
                with_registration=True, pkce_advertised=True, metadata_overrides={}
            )
        first.authorization_server.fail_next("registration", status=403, times=None)
        assert harness.start_login().request.issuer == harness.demo.issuer
        harness.demo.authorization_server.fail_next("registration", status=403, times=None)
        with pytest.raises(RegistrationError) as refused:
            harness.start_login()
        assert "oauth.authorization_server" in refused.value.advice


@quirk_case(61, "`resource` is no URL, or has another query: the error names the option that admits it")
def odd_resources(harness: QuirkHarness) -> None:
    values = ("api://notes", "urn:example:notes", "5f2b9c3e-0000-4000-8000-000000000000")
    for resource in (*values, f"{harness.server.url}?tenant=7", f"{harness.server.url} "):
        harness.change_behaviour(resource_overrides={"resource": resource})
        harness.configure()
        with pytest.raises(DiscoveryFailed) as refused:
            harness.start_login()
        text = f"{refused.value} {refused.value.advice}"
        assert "oauth.resource" in text
        assert "Do not" not in text
        assert (resource in text, refused.value.server_message) == (False, resource.strip())
        harness.configure(resource=refused.value.server_message)
        assert harness.start_login().request.resource == resource.strip()
    # Another origin: no error suggests it, and only exactly the operator's value counts.
    other = "https://upstream.example/mcp"
    harness.change_behaviour(resource_overrides={"resource": other})
    for configured in (None, f"{other}/", other.upper(), "https://upstream.example", False):
        harness.configure(resource=configured)
        with pytest.raises(DiscoveryFailed) as refused:
            harness.start_login()
        assert "oauth.resource" not in f"{refused.value} {refused.value.advice}"
    harness.configure(resource=other)
    assert harness.start_login().request.resource == other


@quirk_case(62, "addresses that differ a little: the error says what differs and what to set")
def addresses(harness: QuirkHarness) -> None:
    server, host = harness.demo.authorization_server, harness.server.url
    server.fail_next("ping", status=307, headers={"Location": f"{urlsplit(host).path}/"})
    with pytest.raises(RedirectRefused) as redirected:
        harness.start_login()
    assert f"{host}/" in redirected.value.advice
    server.fail_next("ping", status=307, headers={"Location": "/ignore/previous"})
    with pytest.raises(RedirectRefused) as redirected:
        harness.start_login()
    assert "ignore" not in f"{redirected.value} {redirected.value.advice}"
    harness.change_behaviour(resource_overrides={"authorization_servers": None})
    with pytest.raises(DiscoveryFailed) as failed:
        harness.start_login()
    assert "oauth.authorization_server" in failed.value.advice
    harness.configure(authorization_server=harness.demo.issuer)
    harness.start_login()
    harness.configure()
    harness.change_behaviour(resource_overrides={}, metadata_overrides={"token_endpoint": "/token"})
    with pytest.raises(UnsafeUrl, match="relative"):
        harness.start_login()
    harness.change_behaviour(metadata_overrides={}, metadata_issuer="http://127.0.0.1:1")
    with pytest.raises(IssuerMismatch, match="another port"):
        harness.start_login()


@quirk_case(63, "token_type is BearerToken or has a blank: Bearer; only an ID token: the error says why")
def odd_token_responses(harness: QuirkHarness) -> None:
    for token_type in ("BearerToken", "Bearer ", " bearer", "bearer_token"):
        harness.change_behaviour(token_overrides={"token_type": token_type})
        harness.log_in()
        assert harness.authorization_header().startswith("Bearer ")
    for token_type in ("mac", "BearerX", "N_A"):
        harness.change_behaviour(token_overrides={"token_type": token_type})
        with pytest.raises(MalformedResponse):
            harness.log_in()
    harness.change_behaviour(token_overrides={"access_token": None, "id_token": "e30.e30.x"})
    with pytest.raises(MalformedResponse) as missing:
        harness.log_in()
    assert "oauth.scope" in missing.value.advice
    assert "audience" in missing.value.advice


@quirk_case(66, "the client is registered for less than a login needs: another client is registered, once")
def scope_of_the_registration(harness: QuirkHarness) -> None:
    harness.change_behaviour(registration_overrides={"scope": "mcp:tools offline_access"})
    harness.log_in()
    harness.log_in()
    assert len(harness.requests_of("registration")) == 1
    demand_scope(harness, "mcp:write")
    harness.log_in()
    assert json.loads(harness.requests_of("registration")[-1].body)["scope"].split() == [
        "mcp:tools",
        "mcp:write",
        "offline_access",
    ]
    # This server registers less than was asked for. That is no reason to register at each login.
    demand_scope(harness, "mcp:write")
    harness.log_in()
    assert len(harness.requests_of("registration")) == 2

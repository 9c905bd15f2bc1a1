"""The real authorization server, its simulated user, and the protected resource."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.parts.browser_user import BrowserUser, approve_device, approve_oidc, deny_oidc
from tests.parts.oauth_client import DEVICE_GRANT, REDIRECT_URI, register_oauth_client
from tests.parts.oidc_provider import FEATURES, OidcOptions, OidcProvider, run_oidc_provider
from tests.parts.protected_resource import serve_protected_resource
from tests.service.helpers import wait_until

pytestmark = [pytest.mark.node, pytest.mark.soak, pytest.mark.xdist_group("oidc-provider")]
RESOURCE = "http://127.0.0.1:9/mcp"
SCOPE = "mcp:tools offline_access"


@pytest.fixture(scope="module")
def op() -> Iterator[OidcProvider]:
    """Run a provider with the default options for all tests that need no other. Each test has its client."""
    with run_oidc_provider() as provider:
        yield provider


def query_parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def test_metadata_has_what_the_mcp_specification_requires(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        assert client.metadata["issuer"] == op.issuer
        assert client.metadata["code_challenge_methods_supported"] == ["S256"]
        assert client.metadata["authorization_response_iss_parameter_supported"] is True
        assert {"offline_access", "mcp:tools"} <= set(client.metadata["scopes_supported"])  # type: ignore[call-overload]
        for name in ("registration", "revocation", "introspection", "device_authorization"):
            assert client.endpoint(name).startswith(op.issuer)
        openid = client.http.get(f"{op.issuer}/.well-known/openid-configuration")
        assert openid.json() == client.metadata


def test_process_ends_with_the_block_also_after_a_failure() -> None:
    pids: list[int] = []

    def fail() -> None:
        with run_oidc_provider() as op:
            pids.append(op.pid)
            assert Path("/proc", str(op.pid)).exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not Path("/proc", str(pids[0])).exists()


def _fail_after_log_line(op: OidcProvider, line: str) -> None:
    # The provider logs a request after it has sent the response.
    wait_until(lambda: line in op.log())
    raise ZeroDivisionError


def test_failure_prints_the_provider_log(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), run_oidc_provider() as op, register_oauth_client(op):
        _fail_after_log_line(op, "POST /reg 201")
    assert "POST /reg 201" in capfd.readouterr().err


def test_public_client_registers_without_a_secret(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        answer = client.register(scope=SCOPE)
        document = answer.json()
        assert answer.status_code == 201
        assert document["token_endpoint_auth_method"] == "none"
        assert "client_secret" not in document
        assert document["scope"] == SCOPE
        refused = client.register(scope="unheard-of")
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client_metadata")


@pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
def test_approved_code_yields_tokens_for_one_resource(https: bool) -> None:  # noqa: FBT001
    with run_oidc_provider(OidcOptions(https=https)) as op, register_oauth_client(op) as client:
        url = client.authorization_url(client.authorization_parameters(SCOPE, RESOURCE))
        redirect_url = approve_oidc(url, name="grace", ca_file=op.ca_file)
        assert redirect_url.startswith(f"{REDIRECT_URI}?")
        assert query_parameters(redirect_url)["state"] == "the-state"
        assert query_parameters(redirect_url)["iss"] == op.issuer
        tokens = client.exchange_code(redirect_url).json()
        assert tokens["scope"] == "mcp:tools"
        assert tokens["refresh_token"]
        introspector = op.introspector
        claims = client.http.post(
            client.endpoint("introspection"),
            data={"token": tokens["access_token"]},
            auth=(introspector.client_id, introspector.client_secret),
        ).json()
        assert (claims["active"], claims["sub"], claims["aud"]) == (True, "grace", RESOURCE)


def test_client_without_the_ca_refuses_the_certificate() -> None:
    with (
        run_oidc_provider(OidcOptions(https=True)) as op,
        httpx.Client(trust_env=False) as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.get(op.issuer)


def test_denied_login_returns_access_denied(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        redirect_url = deny_oidc(client.authorization_url(client.authorization_parameters(SCOPE, RESOURCE)))
        assert query_parameters(redirect_url)["error"] == "access_denied"
        assert query_parameters(redirect_url)["state"] == "the-state"
        assert query_parameters(redirect_url)["iss"] == op.issuer


def test_native_client_may_use_any_loopback_port(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        other_redirect_uri = REDIRECT_URI.replace("8765", "8766")
        parameters = client.authorization_parameters(SCOPE, RESOURCE, redirect_uri=other_redirect_uri)
        redirect_url = approve_oidc(client.authorization_url(parameters))
        assert redirect_url.startswith(f"{other_redirect_uri}?")
        assert client.exchange_code(redirect_url, other_redirect_uri).status_code == 200


def test_request_without_pkce_is_refused(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        parameters = client.authorization_parameters(SCOPE, RESOURCE)
        del parameters["code_challenge"], parameters["code_challenge_method"]
        redirect_url = approve_oidc(client.authorization_url(parameters))
        assert query_parameters(redirect_url)["error"] == "invalid_request"


def test_wrong_redirect_uri_shows_an_error_page(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        url = client.authorization_url(
            client.authorization_parameters(SCOPE, RESOURCE, redirect_uri="https://evil.example/")
        )
        with pytest.raises(AssertionError, match="No redirect, but a page"):
            approve_oidc(url)


def test_refresh_token_rotates_and_reuse_revokes_the_grant(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        url = client.authorization_url(client.authorization_parameters(SCOPE, RESOURCE))
        first = client.exchange_code(approve_oidc(url)).json()
        second = client.request_token("refresh_token", refresh_token=first["refresh_token"]).json()
        assert second["refresh_token"] != first["refresh_token"]
        for spent in (first, second):
            response = client.request_token("refresh_token", refresh_token=spent["refresh_token"])
            assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")


def test_pushed_request_returns_a_usable_request_uri(op: OidcProvider) -> None:
    with register_oauth_client(op) as client:
        parameters = client.authorization_parameters(SCOPE, RESOURCE)
        pushed = client.http.post(client.endpoint("pushed_authorization_request"), data=parameters)
        assert pushed.status_code == 201
        assert pushed.json()["expires_in"] == 60
        reference = {"client_id": client.client_id, "request_uri": pushed.json()["request_uri"]}
        assert client.exchange_code(approve_oidc(client.authorization_url(reference))).status_code == 200


def test_plain_request_is_refused_if_pushed_requests_are_required() -> None:
    options = OidcOptions(require_pushed_authorization_requests=True)
    with run_oidc_provider(options) as op, register_oauth_client(op) as client:
        assert client.metadata["require_pushed_authorization_requests"] is True
        redirect_url = approve_oidc(
            client.authorization_url(client.authorization_parameters(SCOPE, RESOURCE))
        )
        assert query_parameters(redirect_url)["error"] == "invalid_request"


@pytest.mark.parametrize("complete", [True, False], ids=["link", "typed"])
def test_device_is_approved_by_link_or_by_typed_code(op: OidcProvider, complete: bool) -> None:  # noqa: FBT001
    with register_oauth_client(op) as client:
        form = {"client_id": client.client_id, "scope": SCOPE, "resource": RESOURCE}
        device = client.http.post(client.endpoint("device_authorization"), data=form).json()
        assert "interval" not in device
        waiting = client.request_token(DEVICE_GRANT, device_code=device["device_code"])
        assert waiting.json()["error"] == "authorization_pending"
        if complete:
            approve_device(device["verification_uri_complete"])
        else:
            approve_device(device["verification_uri"], device["user_code"])
        tokens = client.request_token(DEVICE_GRANT, device_code=device["device_code"]).json()
        assert (tokens["scope"], bool(tokens["refresh_token"])) == ("mcp:tools", True)


def test_wrong_user_code_approves_nothing(op: OidcProvider) -> None:
    with pytest.raises(AssertionError, match="not approved"):
        approve_device(f"{op.issuer}/device", "BBBB-BBBB")


def test_features_and_paths_can_be_turned_off() -> None:
    options = OidcOptions(
        features=FEATURES - {"deviceFlow", "pushedAuthorizationRequests"},
        absent_paths=("/.well-known/openid-configuration",),
    )
    with run_oidc_provider(options) as op, register_oauth_client(op) as client:
        assert "device_authorization_endpoint" not in client.metadata
        assert "pushed_authorization_request_endpoint" not in client.metadata
        assert client.http.get(f"{op.issuer}/.well-known/openid-configuration").status_code == 404


def test_resource_outside_the_list_is_refused() -> None:
    with (
        run_oidc_provider(OidcOptions(resources=("https://other.example/mcp",))) as op,
        register_oauth_client(op) as client,
    ):
        redirect_url = approve_oidc(
            client.authorization_url(client.authorization_parameters(SCOPE, RESOURCE))
        )
        assert query_parameters(redirect_url)["error"] == "invalid_target"


@pytest.mark.parametrize("options", [OidcOptions(), OidcOptions(access_token_format="jwt", https=True)])
def test_protected_resource_requires_a_token_and_records_its_statuses(options: OidcOptions) -> None:
    with (
        run_oidc_provider(options) as op,
        register_oauth_client(op) as client,
        serve_protected_resource(op) as resource,
    ):
        get = client.http.get
        challenged = get(resource.url)
        assert challenged.status_code == 401
        assert challenged.headers["WWW-Authenticate"] == (
            f'Bearer resource_metadata="{resource.metadata_url}", scope="mcp:tools"'
        )
        document = get(resource.metadata_url).json()
        assert (document["resource"], document["authorization_servers"]) == (resource.url, [op.issuer])
        user = BrowserUser("ada", op.ca_file)

        def call(scope: str, audience: str) -> httpx.Response:
            url = client.authorization_url(client.authorization_parameters(scope, audience))
            token = client.exchange_code(user.approve(url)).json()["access_token"]
            return get(resource.url, headers={"Authorization": f"Bearer {token}"})

        good = call(SCOPE, resource.url)
        assert (good.status_code, good.json()["sub"]) == (200, "ada")
        assert "invalid_token" in call(SCOPE, RESOURCE).headers["WWW-Authenticate"]
        assert "insufficient_scope" in call("mcp:read", resource.url).headers["WWW-Authenticate"]
        garbage = get(resource.url, headers={"Authorization": "Bearer garbage"})
        assert "invalid_token" in garbage.headers["WWW-Authenticate"]
        assert resource.statuses == [401, 200, 401, 403, 401]


def test_two_providers_run_side_by_side() -> None:
    with run_oidc_provider() as first, run_oidc_provider(OidcOptions(host="localhost")) as second:
        assert first.port != second.port
        assert second.issuer == f"http://localhost:{second.port}"
        assert Path(first.log_file) != Path(second.log_file)

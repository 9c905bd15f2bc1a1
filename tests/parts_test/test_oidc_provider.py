"""The real authorization server, its simulated user, and the protected resource."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.parts.oauth_client import DEVICE_GRANT, REDIRECT_URI, oauth_client
from tests.parts.oidc_provider import FEATURES, OidcOptions, OidcProvider, oidc_provider
from tests.parts.person import Person, approve_device, approve_oidc, deny_oidc
from tests.parts.protected_resource import protected_resource
from tests.service.given import eventually

pytestmark = pytest.mark.node
RESOURCE = "http://127.0.0.1:9/mcp"
SCOPE = "mcp:tools offline_access"


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def test_it_publishes_what_the_mcp_specification_asks_for() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        assert client.metadata["issuer"] == op.issuer
        assert client.metadata["code_challenge_methods_supported"] == ["S256"]
        assert client.metadata["authorization_response_iss_parameter_supported"] is True
        assert {"offline_access", "mcp:tools"} <= set(client.metadata["scopes_supported"])  # type: ignore[call-overload]
        for name in ("registration", "revocation", "introspection", "device_authorization"):
            assert client.endpoint(name).startswith(op.issuer)
        openid = client.http.get(f"{op.issuer}/.well-known/openid-configuration")
        assert openid.json() == client.metadata


def test_its_process_ends_with_the_block_also_after_a_failure() -> None:
    pids: list[int] = []

    def fail() -> None:
        with oidc_provider() as op:
            pids.append(op.pid)
            assert Path("/proc", str(op.pid)).exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not Path("/proc", str(pids[0])).exists()


def _fail_once_it_has_written(op: OidcProvider, line: str) -> None:
    # The provider logs a request after it has sent the response.
    eventually(lambda: line in op.log())
    raise ZeroDivisionError


def test_a_failure_shows_its_log(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), oidc_provider() as op, oauth_client(op):
        _fail_once_it_has_written(op, "POST /reg 201")
    assert "POST /reg 201" in capfd.readouterr().err


def test_a_public_client_registers_without_a_secret() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        answer = client.register(scope=SCOPE)
        document = answer.json()
        assert answer.status_code == 201
        assert document["token_endpoint_auth_method"] == "none"
        assert "client_secret" not in document
        assert document["scope"] == SCOPE
        refused = client.register(scope="unheard-of")
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client_metadata")


@pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
def test_a_person_approves_and_the_code_buys_tokens_for_one_resource(https: bool) -> None:  # noqa: FBT001
    with oidc_provider(OidcOptions(https=https)) as op, oauth_client(op) as client:
        url = client.authorization_url(client.parameters(SCOPE, RESOURCE))
        redirected = approve_oidc(url, name="grace", ca_file=op.ca_file)
        assert redirected.startswith(f"{REDIRECT_URI}?")
        assert query(redirected)["state"] == "the-state"
        assert query(redirected)["iss"] == op.issuer
        tokens = client.redeem(redirected).json()
        assert tokens["scope"] == "mcp:tools"
        assert tokens["refresh_token"]
        asker = op.introspector
        told = client.http.post(
            client.endpoint("introspection"),
            data={"token": tokens["access_token"]},
            auth=(asker.client_id, asker.client_secret),
        ).json()
        assert (told["active"], told["sub"], told["aud"]) == (True, "grace", RESOURCE)


def test_its_certificate_is_refused_by_whoever_does_not_know_the_authority() -> None:
    with (
        oidc_provider(OidcOptions(https=True)) as op,
        httpx.Client(trust_env=False) as stranger,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        stranger.get(op.issuer)


def test_a_person_may_refuse() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        redirected = deny_oidc(client.authorization_url(client.parameters(SCOPE, RESOURCE)))
        assert query(redirected)["error"] == "access_denied"
        assert query(redirected)["state"] == "the-state"
        assert query(redirected)["iss"] == op.issuer


def test_a_native_client_may_come_back_at_any_loopback_port() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        elsewhere = REDIRECT_URI.replace("8765", "8766")
        parameters = client.parameters(SCOPE, RESOURCE, redirect_uri=elsewhere)
        redirected = approve_oidc(client.authorization_url(parameters))
        assert redirected.startswith(f"{elsewhere}?")
        assert client.redeem(redirected, elsewhere).status_code == 200


def test_a_request_without_pkce_is_refused() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        parameters = client.parameters(SCOPE, RESOURCE)
        del parameters["code_challenge"], parameters["code_challenge_method"]
        redirected = approve_oidc(client.authorization_url(parameters))
        assert query(redirected)["error"] == "invalid_request"


def test_a_wrong_address_is_told_apart_from_a_redirect() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        url = client.authorization_url(
            client.parameters(SCOPE, RESOURCE, redirect_uri="https://evil.example/")
        )
        with pytest.raises(AssertionError, match="No redirect, but a page"):
            approve_oidc(url)


def test_refresh_rotates_and_reuse_ends_the_whole_grant() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        url = client.authorization_url(client.parameters(SCOPE, RESOURCE))
        first = client.redeem(approve_oidc(url)).json()
        second = client.token("refresh_token", refresh_token=first["refresh_token"]).json()
        assert second["refresh_token"] != first["refresh_token"]
        for spent in (first, second):
            again = client.token("refresh_token", refresh_token=spent["refresh_token"])
            assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


def test_a_pushed_request_is_answered_with_a_reference_that_works() -> None:
    with oidc_provider() as op, oauth_client(op) as client:
        parameters = client.parameters(SCOPE, RESOURCE)
        pushed = client.http.post(client.endpoint("pushed_authorization_request"), data=parameters)
        assert pushed.status_code == 201
        assert pushed.json()["expires_in"] == 60
        reference = {"client_id": client.client_id, "request_uri": pushed.json()["request_uri"]}
        assert client.redeem(approve_oidc(client.authorization_url(reference))).status_code == 200


def test_where_requests_must_be_pushed_a_plain_one_is_refused() -> None:
    options = OidcOptions(require_pushed_authorization_requests=True)
    with oidc_provider(options) as op, oauth_client(op) as client:
        assert client.metadata["require_pushed_authorization_requests"] is True
        redirected = approve_oidc(client.authorization_url(client.parameters(SCOPE, RESOURCE)))
        assert query(redirected)["error"] == "invalid_request"


@pytest.mark.parametrize("complete", [True, False], ids=["link", "typed"])
def test_a_device_is_approved_by_link_or_by_typing_the_code(complete: bool) -> None:  # noqa: FBT001
    with oidc_provider() as op, oauth_client(op) as client:
        form = {"client_id": client.client_id, "scope": SCOPE, "resource": RESOURCE}
        device = client.http.post(client.endpoint("device_authorization"), data=form).json()
        assert "interval" not in device
        waiting = client.token(DEVICE_GRANT, device_code=device["device_code"])
        assert waiting.json()["error"] == "authorization_pending"
        if complete:
            approve_device(device["verification_uri_complete"])
        else:
            approve_device(device["verification_uri"], device["user_code"])
        tokens = client.token(DEVICE_GRANT, device_code=device["device_code"]).json()
        assert (tokens["scope"], bool(tokens["refresh_token"])) == ("mcp:tools", True)


def test_a_wrong_user_code_approves_nothing() -> None:
    with oidc_provider() as op, pytest.raises(AssertionError, match="not approved"):
        approve_device(f"{op.issuer}/device", "BBBB-BBBB")


def test_features_go_off_and_paths_go_away() -> None:
    options = OidcOptions(
        features=FEATURES - {"deviceFlow", "pushedAuthorizationRequests"},
        absent=("/.well-known/openid-configuration",),
    )
    with oidc_provider(options) as op, oauth_client(op) as client:
        assert "device_authorization_endpoint" not in client.metadata
        assert "pushed_authorization_request_endpoint" not in client.metadata
        assert client.http.get(f"{op.issuer}/.well-known/openid-configuration").status_code == 404


def test_an_unknown_resource_is_refused_where_resources_are_listed() -> None:
    with (
        oidc_provider(OidcOptions(resources=("https://other.example/mcp",))) as op,
        oauth_client(op) as client,
    ):
        redirected = approve_oidc(client.authorization_url(client.parameters(SCOPE, RESOURCE)))
        assert query(redirected)["error"] == "invalid_target"


@pytest.mark.parametrize("options", [OidcOptions(), OidcOptions(access_token_format="jwt", https=True)])
def test_the_protected_resource_asks_for_a_token_and_counts_only_its_own(options: OidcOptions) -> None:
    with (
        oidc_provider(options) as op,
        oauth_client(op) as client,
        protected_resource(op) as resource,
    ):
        ask = client.http.get
        challenged = ask(resource.url)
        assert challenged.status_code == 401
        assert challenged.headers["WWW-Authenticate"] == (
            f'Bearer resource_metadata="{resource.metadata_url}", scope="mcp:tools"'
        )
        document = ask(resource.metadata_url).json()
        assert (document["resource"], document["authorization_servers"]) == (resource.url, [op.issuer])
        person = Person("ada", op.ca_file)

        def call(scope: str, audience: str) -> httpx.Response:
            url = client.authorization_url(client.parameters(scope, audience))
            token = client.redeem(person.approve(url)).json()["access_token"]
            return ask(resource.url, headers={"Authorization": f"Bearer {token}"})

        good = call(SCOPE, resource.url)
        assert (good.status_code, good.json()["sub"]) == (200, "ada")
        assert "invalid_token" in call(SCOPE, RESOURCE).headers["WWW-Authenticate"]
        assert "insufficient_scope" in call("mcp:read", resource.url).headers["WWW-Authenticate"]
        garbage = ask(resource.url, headers={"Authorization": "Bearer garbage"})
        assert "invalid_token" in garbage.headers["WWW-Authenticate"]
        assert resource.statuses == [401, 200, 401, 403, 401]


def test_two_run_side_by_side() -> None:
    with oidc_provider() as one, oidc_provider(OidcOptions(host="localhost")) as other:
        assert one.port != other.port
        assert other.issuer == f"http://localhost:{other.port}"
        assert Path(one.log_file) != Path(other.log_file)

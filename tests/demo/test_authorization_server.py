"""The demo's authorization server is as strict as a real one."""

from __future__ import annotations

from urllib.parse import urlencode

import httpx
import pytest

from tests.consent_form import approve, deny, fetch, read_consent_form
from tests.demo.manual_client import REDIRECT_URI, STATE, ManualClient, ManualClock, error_of, parameters_of
from tests.parts.authorization_server import Demo


def test_metadata_is_at_the_url_of_rfc_8414_and_lists_the_features(demo: Demo) -> None:
    document = httpx.get(f"{demo.issuer}/.well-known/oauth-authorization-server").json()
    assert document["issuer"] == demo.issuer
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True
    assert "pushed_authorization_request_endpoint" not in document
    assert httpx.get(f"{demo.issuer}/.well-known/openid-configuration").status_code == 404


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("rfc8414", "/.well-known/oauth-authorization-server/tenant"),
        ("openid_inserted", "/.well-known/openid-configuration/tenant"),
        ("openid_appended", "/tenant/.well-known/openid-configuration"),
    ],
)
def test_metadata_of_an_issuer_with_a_path_is_only_at_the_chosen_url(
    demo: Demo, location: str, path: str
) -> None:
    demo.authorization_server.change_behaviour(issuer_path="/tenant", metadata_locations=(location,))
    assert (
        httpx.get(demo.authorization_server.origin + path).json()["issuer"]
        == f"{demo.authorization_server.origin}/tenant"
    )
    demo.authorization_server.change_behaviour(metadata_locations=())
    assert httpx.get(demo.authorization_server.origin + path).status_code == 404


def test_a_login_from_registration_to_refresh(demo: Demo, client: ManualClient) -> None:
    redirect = approve(client.authorization_url())
    assert redirect.startswith(REDIRECT_URI + "?")
    parameters = parameters_of(redirect)
    assert set(parameters) == {"code", "state", "iss"}
    assert (parameters["state"], parameters["iss"]) == (STATE, demo.issuer)

    response = client.exchange(parameters["code"])
    assert response.headers["cache-control"] == "no-store"
    tokens = response.json()
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 3600, "mcp:tools")

    refreshed = client.refresh(tokens["refresh_token"]).json()
    assert refreshed["access_token"] != tokens["access_token"]
    assert refreshed["refresh_token"] != tokens["refresh_token"]
    secrets = {
        parameters["code"],
        tokens["access_token"],
        refreshed["access_token"],
        refreshed["refresh_token"],
    }
    assert secrets <= demo.authorization_server.minted_secrets


def test_a_denied_request_redirects_with_access_denied_state_and_iss(
    demo: Demo, client: ManualClient
) -> None:
    parameters = parameters_of(deny(client.authorization_url()))
    assert (parameters["error"], parameters["state"], parameters["iss"]) == (
        "access_denied",
        STATE,
        demo.issuer,
    )
    assert "code" not in parameters


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": "http://127.0.0.1:33418/other"},
        {"redirect_uri": "http://127.0.0.1:33419/callback"},
        {"redirect_uri": f"{REDIRECT_URI}?more=1"},
        {"redirect_uri": None},
        {"request_uri": "urn:ietf:params:oauth:request_uri:made-up"},
    ],
)
def test_an_unknown_client_or_redirect_uri_gets_a_page_and_no_redirect(
    client: ManualClient, changes: dict[str, str | None]
) -> None:
    response = client.authorize(**changes)
    assert response.status_code == 400
    assert "location" not in response.headers
    assert response.headers["content-type"].startswith("text/html")


def test_a_repeated_parameter_gets_a_page_and_no_redirect(client: ManualClient) -> None:
    response = httpx.get(client.authorization_url() + "&state=another")
    assert (response.status_code, "location" in response.headers) == (400, False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "https://elsewhere.example/mcp"}, "invalid_target"),
        ({"scope": "everything"}, "invalid_scope"),
    ],
)
def test_an_invalid_request_is_redirected_back_with_its_error(
    demo: Demo, client: ManualClient, changes: dict[str, str | None], error: str
) -> None:
    response = client.authorize(**changes)
    assert response.status_code == 303
    sent_back = parameters_of(response.headers["location"])
    assert (sent_back["error"], sent_back["state"], sent_back["iss"]) == (error, STATE, demo.issuer)
    assert "code" not in sent_back


def test_another_loopback_port_is_accepted_only_with_the_option(client: ManualClient) -> None:
    other_port = "http://127.0.0.1:50000/callback"
    client.demo.authorization_server.change_behaviour(allows_any_loopback_port=True)
    assert client.authorize(redirect_uri=other_port).status_code == 200
    assert client.authorize(redirect_uri="http://127.0.0.1:50000/other").status_code == 400
    assert client.authorize(redirect_uri="http://127.0.0.1.evil.example/callback").status_code == 400


@pytest.mark.parametrize("fault", ["none", "no cookie", "wrong token", "late"])
def test_a_consent_page_is_valid_once_in_time_and_in_its_own_browser(
    clock: ManualClock, client: ManualClient, fault: str
) -> None:
    _, headers, page = fetch("GET", client.authorization_url())
    action, fields = read_consent_form(page)
    url = client.demo.authorization_server.origin + action
    cookie = "" if fault == "no cookie" else headers["set-cookie"].partition(";")[0]
    if fault == "wrong token":
        fields["csrf"] = "guess"
    if fault == "late":
        clock.now += 600
    body = urlencode({**fields, "decision": "approve"})
    assert fetch("POST", url, body, cookie)[0] == (303 if fault == "none" else 400)
    assert fetch("POST", url, body, cookie)[0] == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uris": ["http://example.com/callback"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://127.0.0.1.example.com/callback"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://app.example/callback#here"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://user@app.example/callback"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [REDIRECT_URI, 7]}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"application_type": "web"}, "invalid_redirect_uri"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
    ],
)
def test_invalid_client_metadata_is_refused(
    client: ManualClient, changes: dict[str, object], error: str
) -> None:
    assert error_of(client.register(**changes)) == (400, error)


def test_an_https_redirect_uri_can_be_registered_and_used(demo: Demo) -> None:
    uri = "https://app.example/callback?keep=1"
    client = ManualClient(demo, redirect_uris=[uri], application_type="web")
    redirect = approve(client.authorization_url(redirect_uri=uri))
    assert redirect.startswith(f"{uri}&")
    code = parameters_of(redirect)["code"]
    assert client.exchange(code, redirect_uri=uri).status_code == 200


def test_a_client_id_metadata_document_needs_the_option_and_its_own_url(
    demo: Demo, client: ManualClient
) -> None:
    url = "https://app.example/client.json"
    document = {"client_id": url, "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"}
    demo.authorization_server.client_documents = {url: document, f"{url}?copy": document}
    assert client.authorize(client_id=url).status_code == 400
    demo.authorization_server.change_behaviour(cimd_supported=True)
    assert client.authorize(client_id=url).status_code == 200
    assert client.authorize(client_id=f"{url}?copy").status_code == 400


def test_a_pushed_request_is_valid_once_in_time_and_for_its_client(
    clock: ManualClock, demo: Demo, client: ManualClient
) -> None:
    demo.authorization_server.change_behaviour(with_par=True, require_par=True)
    assert client.authorize().status_code == 400

    def push() -> str:
        response = client.post_form("/par", dict(client.authorization_parameters()))
        assert (response.status_code, response.json()["expires_in"]) == (201, 300)
        uri: str = response.json()["request_uri"]
        return uri

    def url(uri: str, client_id: str) -> str:
        query = urlencode({"client_id": client_id, "request_uri": uri})
        return f"{demo.authorization_server.origin}/authorize?{query}"

    client_id, uri = client.registration["client_id"], push()
    code = parameters_of(approve(url(uri, client_id)))["code"]
    assert client.exchange(code).status_code == 200
    assert httpx.get(url(uri, client_id)).status_code == 400
    demo.authorization_server.change_behaviour(with_par=True)
    assert httpx.get(url(push(), ManualClient(demo).registration["client_id"])).status_code == 400
    expired_uri = push()
    clock.now += 300
    assert httpx.get(url(expired_uri, client_id)).status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "http://127.0.0.1:1/other"}, (400, "invalid_request")),
        ({"code_challenge": None}, (400, "invalid_request")),
        ({"resource": "https://elsewhere.example"}, (400, "invalid_target")),
        ({"client_id": "nobody"}, (401, "invalid_client")),
        ({"request_uri": "urn:x"}, (400, "request_not_supported")),
    ],
)
def test_an_invalid_pushed_request_is_refused_at_once(
    demo: Demo, client: ManualClient, changes: dict[str, str | None], error: tuple[int, str]
) -> None:
    demo.authorization_server.change_behaviour(with_par=True)
    assert error_of(client.post_form("/par", dict(client.authorization_parameters(**changes)))) == error

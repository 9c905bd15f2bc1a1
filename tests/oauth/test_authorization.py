"""Scope, resource and PKCE -> authorization URL, with pushed requests if the server supports them."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from hermes_mcp_auth_remote.errors import (
    MalformedResponse,
    PkceNotSupported,
    TimedOut,
    TokenError,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.oauth.authorization import (
    AuthorizationRequest,
    check_pkce,
    code_challenge,
    push_request,
    select_resource,
    select_scope,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.metadata import Discovery, ProtectedResource
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import ExchangeScript, script_exchange
from tests.oauth.builders import ISSUER, REDIRECT_URI, STATE, VERIFIER, client, request, server
from tests.requirements import covers

PAR = f"{ISSUER}/par"


def query_of(authorization_request: AuthorizationRequest) -> dict[str, str]:
    pairs = parse_qsl(urlsplit(authorization_request.url).query, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), "a parameter occurs twice"
    return dict(pairs)


def choose_scope(
    resource_scopes: tuple[str, ...] | None = None,
    challenge_scope: str | None = None,
    *,
    server_scopes: list[str] | None = None,
    error: str | None = None,
    configured_scope: str | None = None,
    granted_scope: str = "",
    scope_cap: str | None = None,
) -> str | None:
    scope = select_scope(
        Discovery(
            server(scopes_supported=server_scopes),
            ProtectedResource("https://mcp.example", (ISSUER,), resource_scopes),
        ),
        Challenge(scope=frozenset(challenge_scope.split()) if challenge_scope else None, error=error),
        configured_scope=frozenset(configured_scope.split()) if configured_scope else None,
        granted_scope=frozenset(granted_scope.split()),
        scope_cap=frozenset(scope_cap.split()) if scope_cap else None,
    )
    return None if scope is None else " ".join(sorted(scope))


@covers("pkce-required")
@pytest.mark.parametrize("methods", [None, [], ["plain"], "S256"])
def test_quirk_13_missing_code_challenge_methods_are_refused_and_can_be_overridden(methods: object) -> None:
    authorization_server = server(code_challenge_methods_supported=methods)
    with pytest.raises(PkceNotSupported, match="PKCE with S256") as caught:
        check_pkce(authorization_server)
    assert "allow_missing_pkce" in caught.value.advice
    check_pkce(authorization_server, allow_missing_pkce=True)
    assert query_of(request(authorization_server=authorization_server))["code_challenge_method"] == "S256"
    check_pkce(server())


@covers("pkce-s256")
def test_the_code_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    verifier = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@covers("pkce-s256", "no-secret")
def test_an_authorization_request_has_state_and_code_challenge_but_not_the_verifier() -> None:
    authorization_request = request(scope=frozenset({"b", "a"}), resource="https://mcp.example")
    assert query_of(authorization_request) == {
        "response_type": "code",
        "client_id": "client-1",
        "redirect_uri": REDIRECT_URI,
        "state": STATE,
        "code_challenge": code_challenge(Secret(VERIFIER)),
        "code_challenge_method": "S256",
        "scope": "a b",
        "resource": "https://mcp.example",
    }
    assert VERIFIER not in authorization_request.url
    assert STATE not in repr(authorization_request)


@covers("offline-access")
def test_quirk_24_offline_access_is_requested_if_the_authorization_server_lists_it() -> None:
    assert choose_scope(("read",), server_scopes=["read", "offline_access", "admin"]) == "offline_access read"
    assert choose_scope(("read",), server_scopes=["read"]) == "read"
    assert choose_scope(server_scopes=["offline_access"]) is None
    assert choose_scope(("read",), server_scopes=["offline_access"], configured_scope="write") == "write"


@covers("offline-access")
def test_quirk_24_offline_access_at_an_openid_server_adds_prompt_consent() -> None:
    scope = frozenset({"offline_access"})
    openid_server = server(id_token_signing_alg_values_supported=["RS256"])
    assert query_of(request(authorization_server=openid_server, scope=scope))["prompt"] == "consent"
    assert "prompt" not in query_of(request(authorization_server=openid_server, scope=frozenset({"read"})))
    assert "prompt" not in query_of(request(scope=scope))


@covers("scope-choice")
@pytest.mark.parametrize(
    ("listed", "challenged", "configured", "expected"),
    [
        (("a",), "b", "c", "c"),
        (("a",), "b", None, "b"),
        (("a",), None, None, "a"),
        (("a", "b c"), None, None, "a b c"),
        ((), None, None, None),
        ((" ",), None, None, None),
        (None, None, None, None),
    ],
    ids=[
        "configured wins",
        "the challenge's",
        "scopes_supported of the resource",
        "two scopes in one text",
        "scopes_supported: []",
        "scopes_supported with a blank",
        "nothing",
    ],
)
def test_quirk_26_scope_sources_are_used_in_order_and_never_all_server_scopes(
    listed: tuple[str, ...] | None, challenged: str | None, configured: str | None, expected: str | None
) -> None:
    assert (
        choose_scope(listed, challenged, server_scopes=["everything"], configured_scope=configured)
        == expected
    )


@covers("scope-choice")
def test_quirk_26_an_empty_scope_is_left_out() -> None:
    assert "scope" not in query_of(request(scope=None))
    assert "scope" not in query_of(request(scope=frozenset()))


@covers("step-up")
def test_quirk_38_a_step_up_requests_the_union_of_scopes_within_the_cap() -> None:
    assert choose_scope(("a",), "b", error="insufficient_scope", granted_scope="a c") == "a b c"
    assert choose_scope(("a",), "b", error="insufficient_scope", configured_scope="a") == "a b"
    assert choose_scope(("a",), "b", configured_scope="a") == "a"
    assert choose_scope(("a", "b"), scope_cap="a x") == "a"
    assert choose_scope(("admin",), scope_cap="read") == "read"
    assert choose_scope(None, scope_cap="read") is None


@covers("extra-parameters")
def test_quirk_27_configured_parameters_do_not_replace_security_parameters() -> None:
    hostile = dict.fromkeys(
        ("response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"),
        "x",
    )
    extra = {"access_type": "offline", "prompt": "consent", "request_uri": "x", "request": "x", **hostile}
    authorization_request = query_of(request(extra_parameters=extra))
    assert authorization_request == {**query_of(request()), "access_type": "offline", "prompt": "consent"}


@covers("extra-parameters")
def test_the_endpoint_query_is_kept_but_does_not_set_oauth_parameters() -> None:
    endpoint = (
        f"{ISSUER}/authorize?tenant=7&redirect_uri=https%3A%2F%2Fevil.example&st%61te=x&client_id=evil#f"
    )
    authorization_request = query_of(request(authorization_server=server(authorization_endpoint=endpoint)))
    assert authorization_request == {"tenant": "7", **query_of(request())}
    assert "#" not in request(authorization_server=server(authorization_endpoint=endpoint)).url


@covers("safe-urls")
def test_an_authorization_url_over_8192_characters_is_refused() -> None:
    with pytest.raises(UnsafeUrl, match="8192"):
        request(scope=frozenset(f"scope-{n}" for n in range(2000)))


@covers("resource-choice")
def test_quirk_28_the_resource_is_sent_as_published_and_can_be_turned_off() -> None:
    url, own = "https://mcp.example/mcp", ProtectedResource("https://MCP.example/", (ISSUER,))
    assert select_resource(url, own) == "https://MCP.example/"
    assert select_resource(url, None) == url
    assert select_resource(f"{url}?project_ref=1&key=k", None) == url
    assert select_resource(url, own, "api://mcp") == "api://mcp"
    assert select_resource(url, own, override=False) is None
    assert "resource" not in query_of(request(resource=None))


def script_push(*, required: bool = False) -> ExchangeScript[AuthorizationRequest]:
    authorization_server = server(
        pushed_authorization_request_endpoint=PAR, require_pushed_authorization_requests=required
    )
    return script_exchange(
        push_request(
            authorization_server,
            request(authorization_server=authorization_server, resource="https://mcp.example"),
        )
    )


@covers("pushed", "resource-everywhere")
def test_a_pushed_request_sends_all_parameters_and_its_url_has_none_of_them() -> None:
    expected = query_of(request(resource="https://mcp.example"))
    script = script_push().expects(f"POST {PAR}", form=expected)
    authorization_request = script.responds(
        201, {"request_uri": "urn:example:1", "expires_in": 300}
    ).returns()
    assert query_of(authorization_request) == {"client_id": "client-1", "request_uri": "urn:example:1"}
    assert authorization_request.lifetime_seconds == 300.0
    assert authorization_request.state == Secret(STATE)


@covers("pushed")
def test_without_an_endpoint_nothing_is_pushed() -> None:
    authorization_request = request()
    script_exchange(push_request(server(), authorization_request)).returns(authorization_request)


@covers("pushed")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "<html>"),
        (500, "<html>"),
        (400, {"error": "invalid_request"}),
        (201, {}),
        (201, {"request_uri": "urn:example:1", "expires_in": 10**400}),
        (201, {"request_uri": "urn:example:1", "expires_in": 60}),
    ],
    ids=["404", "500", "refused", "empty object", "junk as lifetime", "lifetime too short"],
)
def test_a_failed_optional_push_falls_back_to_the_plain_request(status: int, body: object) -> None:
    authorization_request = script_push().expects(f"POST {PAR}").responds(status, body).returns()  # type: ignore[arg-type]
    assert query_of(authorization_request)["state"] == STATE
    assert authorization_request.lifetime_seconds is None


@covers("pushed")
def test_a_push_timeout_is_raised_only_if_pushing_is_required() -> None:
    assert query_of(script_push().expects(f"POST {PAR}").fails(TimedOut("late")).returns())["state"] == STATE
    script_push(required=True).expects(f"POST {PAR}").fails(TimedOut("late")).raises(TimedOut)


@covers("pushed")
def test_a_failed_required_push_is_raised_and_a_short_lifetime_is_accepted() -> None:
    script_push(required=True).expects(f"POST {PAR}").responds(500, "<html>").raises(MalformedResponse)
    script_push(required=True).expects(f"POST {PAR}").responds(400, {"error": "x"}).raises(TokenError)
    script = script_push(required=True).expects(f"POST {PAR}")
    authorization_request = script.responds(201, {"request_uri": "urn:example:1", "expires_in": 60}).returns()
    assert authorization_request.lifetime_seconds == 60.0


@covers("stale-client", "no-secret")
def test_quirk_19_a_refused_push_raises_an_error_without_the_echoed_state() -> None:
    script = script_push().expects(f"POST {PAR}")
    error = script.responds(401, {"error": "invalid_client", "error_description": STATE}).raises(TokenError)
    assert error.error == "invalid_client"
    echoing = script_push(required=True).expects(f"POST {PAR}").responds(400, {"error": f"bad {STATE}"})
    assert STATE not in repr(echoing.raises(TokenError))


def test_a_client_with_a_secret_authenticates_its_push() -> None:
    authorization_server = server(pushed_authorization_request_endpoint=PAR)
    oauth_client = client(client_secret=Secret("s3cret"), auth_method="client_secret_post")
    script = script_exchange(
        push_request(
            authorization_server, request(authorization_server=authorization_server, client=oauth_client)
        )
    )
    script.expects(f"POST {PAR}", form={"client_secret": "s3cret", "client_id": "client-1"})
    script.responds(201, {"request_uri": "urn:example:1", "expires_in": 300}).returns()

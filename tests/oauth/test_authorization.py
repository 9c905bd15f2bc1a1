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
from tests.oauth.parties import ISSUER, REDIRECT_URI, STATE, VERIFIER, client, request, server
from tests.playbook import Play, play
from tests.requirements import covers

PAR = f"{ISSUER}/par"


def query(made: AuthorizationRequest) -> dict[str, str]:
    pairs = parse_qsl(urlsplit(made.url).query, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), "a parameter occurs twice"
    return dict(pairs)


def selected(
    listed: tuple[str, ...] | None = None,
    challenged: str | None = None,
    *,
    offered: list[str] | None = None,
    error: str | None = None,
    configured: str | None = None,
    held: str = "",
    cap: str | None = None,
) -> str | None:
    scope = select_scope(
        Discovery(
            server(scopes_supported=offered), ProtectedResource("https://mcp.example", (ISSUER,), listed)
        ),
        Challenge(scope=frozenset(challenged.split()) if challenged else None, error=error),
        configured_scope=frozenset(configured.split()) if configured else None,
        granted_scope=frozenset(held.split()),
        scope_cap=frozenset(cap.split()) if cap else None,
    )
    return None if scope is None else " ".join(sorted(scope))


@covers("pkce-required")
@pytest.mark.parametrize("methods", [None, [], ["plain"], "S256"])
def test_quirk_13_missing_code_challenge_methods_are_refused_and_can_be_overridden(methods: object) -> None:
    party = server(code_challenge_methods_supported=methods)
    with pytest.raises(PkceNotSupported, match="PKCE with S256") as caught:
        check_pkce(party)
    assert "allow_missing_pkce" in caught.value.advice
    check_pkce(party, allow_missing_pkce=True)
    assert query(request(authorization_server=party))["code_challenge_method"] == "S256"
    check_pkce(server())


@covers("pkce-s256")
def test_the_code_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    verifier = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@covers("pkce-s256", "no-secret")
def test_a_request_carries_state_and_code_challenge_and_never_the_verifier() -> None:
    made = request(scope=frozenset({"b", "a"}), resource="https://mcp.example")
    assert query(made) == {
        "response_type": "code",
        "client_id": "client-1",
        "redirect_uri": REDIRECT_URI,
        "state": STATE,
        "code_challenge": code_challenge(Secret(VERIFIER)),
        "code_challenge_method": "S256",
        "scope": "a b",
        "resource": "https://mcp.example",
    }
    assert VERIFIER not in made.url
    assert STATE not in repr(made)


@covers("offline-access")
def test_quirk_24_offline_access_is_added_where_the_authorization_server_lists_it() -> None:
    assert selected(("read",), offered=["read", "offline_access", "admin"]) == "offline_access read"
    assert selected(("read",), offered=["read"]) == "read"
    assert selected(offered=["offline_access"]) is None
    assert selected(("read",), offered=["offline_access"], configured="write") == "write"


@covers("offline-access")
def test_quirk_24_openid_gets_prompt_consent_with_offline_access_and_others_do_not() -> None:
    scope = frozenset({"offline_access"})
    openid = server(id_token_signing_alg_values_supported=["RS256"])
    assert query(request(authorization_server=openid, scope=scope))["prompt"] == "consent"
    assert "prompt" not in query(request(authorization_server=openid, scope=frozenset({"read"})))
    assert "prompt" not in query(request(scope=scope))


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
def test_quirk_26_scope_is_chosen_in_order_and_never_the_whole_catalogue(
    listed: tuple[str, ...] | None, challenged: str | None, configured: str | None, expected: str | None
) -> None:
    assert selected(listed, challenged, offered=["everything"], configured=configured) == expected


@covers("scope-choice")
def test_quirk_26_an_empty_scope_is_left_out() -> None:
    assert "scope" not in query(request(scope=None))
    assert "scope" not in query(request(scope=frozenset()))


@covers("step-up")
def test_quirk_38_a_step_up_asks_for_the_union_under_the_cap() -> None:
    assert selected(("a",), "b", error="insufficient_scope", held="a c") == "a b c"
    assert selected(("a",), "b", error="insufficient_scope", configured="a") == "a b"
    assert selected(("a",), "b", configured="a") == "a"
    assert selected(("a", "b"), cap="a x") == "a"
    assert selected(("admin",), cap="read") == "read"
    assert selected(None, cap="read") is None


@covers("extra-parameters")
def test_quirk_27_an_operator_adds_parameters_but_replaces_none_that_safety_hangs_on() -> None:
    hostile = dict.fromkeys(
        ("response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"),
        "x",
    )
    extra = {"access_type": "offline", "prompt": "consent", "request_uri": "x", "request": "x", **hostile}
    made = query(request(extra_parameters=extra))
    assert made == {**query(request()), "access_type": "offline", "prompt": "consent"}


@covers("extra-parameters")
def test_the_endpoint_s_own_query_stays_but_brings_no_parameter_of_ours() -> None:
    endpoint = (
        f"{ISSUER}/authorize?tenant=7&redirect_uri=https%3A%2F%2Fevil.example&st%61te=x&client_id=evil#f"
    )
    made = query(request(authorization_server=server(authorization_endpoint=endpoint)))
    assert made == {"tenant": "7", **query(request())}
    assert "#" not in request(authorization_server=server(authorization_endpoint=endpoint)).url


@covers("safe-urls")
def test_an_authorization_url_longer_than_any_browser_takes_is_refused() -> None:
    with pytest.raises(UnsafeUrl, match="8192"):
        request(scope=frozenset(f"scope-{n}" for n in range(2000)))


@covers("resource-choice")
def test_quirk_28_the_resource_is_the_server_s_own_spelling_and_can_be_turned_off() -> None:
    url, own = "https://mcp.example/mcp", ProtectedResource("https://MCP.example/", (ISSUER,))
    assert select_resource(url, own) == "https://MCP.example/"
    assert select_resource(url, None) == url
    assert select_resource(f"{url}?project_ref=1&key=k", None) == url
    assert select_resource(url, own, "api://mcp") == "api://mcp"
    assert select_resource(url, own, override=False) is None
    assert "resource" not in query(request(resource=None))


def pushing(*, required: bool = False) -> Play[AuthorizationRequest]:
    party = server(pushed_authorization_request_endpoint=PAR, require_pushed_authorization_requests=required)
    return play(push_request(party, request(authorization_server=party, resource="https://mcp.example")))


@covers("pushed", "resource-everywhere")
def test_a_pushed_request_carries_everything_and_its_url_carries_none_of_it() -> None:
    expected = query(request(resource="https://mcp.example"))
    script = pushing().expects(f"POST {PAR}", form=expected)
    made = script.answers(201, {"request_uri": "urn:example:1", "expires_in": 300}).returns()
    assert query(made) == {"client_id": "client-1", "request_uri": "urn:example:1"}
    assert made.lifetime_seconds == 300.0
    assert made.state == Secret(STATE)


@covers("pushed")
def test_without_an_endpoint_nothing_is_pushed() -> None:
    made = request()
    play(push_request(server(), made)).returns(made)


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
def test_a_server_that_only_offers_pushing_and_fails_gets_the_plain_request(
    status: int, body: object
) -> None:
    made = pushing().expects(f"POST {PAR}").answers(status, body).returns()  # type: ignore[arg-type]
    assert query(made)["state"] == STATE
    assert made.lifetime_seconds is None


@covers("pushed")
def test_a_timeout_of_an_optional_push_gets_the_plain_request_and_of_a_required_one_is_raised() -> None:
    assert query(pushing().expects(f"POST {PAR}").fails(TimedOut("late")).returns())["state"] == STATE
    pushing(required=True).expects(f"POST {PAR}").fails(TimedOut("late")).raises(TimedOut)


@covers("pushed")
def test_a_required_push_that_fails_is_raised_and_one_of_short_life_is_used() -> None:
    pushing(required=True).expects(f"POST {PAR}").answers(500, "<html>").raises(MalformedResponse)
    pushing(required=True).expects(f"POST {PAR}").answers(400, {"error": "x"}).raises(TokenError)
    script = pushing(required=True).expects(f"POST {PAR}")
    made = script.answers(201, {"request_uri": "urn:example:1", "expires_in": 60}).returns()
    assert made.lifetime_seconds == 60.0


@covers("stale-client", "no-secret")
def test_quirk_19_a_push_by_a_forgotten_client_is_raised_without_the_state_it_echoes() -> None:
    script = pushing().expects(f"POST {PAR}")
    error = script.answers(401, {"error": "invalid_client", "error_description": STATE}).raises(TokenError)
    assert error.error == "invalid_client"
    echoing = pushing(required=True).expects(f"POST {PAR}").answers(400, {"error": f"bad {STATE}"})
    assert STATE not in repr(echoing.raises(TokenError))


def test_a_client_with_a_secret_authenticates_its_push() -> None:
    party = server(pushed_authorization_request_endpoint=PAR)
    who = client(client_secret=Secret("s3cret"), auth_method="client_secret_post")
    script = play(push_request(party, request(authorization_server=party, client=who)))
    script.expects(f"POST {PAR}", form={"client_secret": "s3cret", "client_id": "client-1"})
    script.answers(201, {"request_uri": "urn:example:1", "expires_in": 300}).returns()

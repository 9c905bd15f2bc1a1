"""Discovery: which documents are fetched, in which order, and which are accepted."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import (
    DiscoveryFailed,
    IssuerMismatch,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.oauth.metadata import discover_metadata
from hermes_mcp_auth_remote.oauth.urls import origin_of
from tests.oauth.parties import HTML, NAMED, OPENID, PRM, RFC8414, URL, found, metadata, prm
from tests.playbook import play, sample
from tests.requirements import covers


@covers("issuer-slash")
@pytest.mark.parametrize(
    ("listed", "published"),
    [
        ("https://accounts.google.example/", "https://accounts.google.example"),
        ("https://accounts.google.example", "https://accounts.google.example/"),
        ("https://accounts.google.example", "https://accounts.google.example:443"),
    ],
)
def test_quirk_1_a_bare_slash_of_an_issuer_without_path_is_forgiven(listed: str, published: str) -> None:
    script = found(listed).expects(f"GET https://accounts.google.example{RFC8414}")
    result = script.answers(200, metadata(published)).returns()
    assert result.authorization_server.issuer == published


@covers("issuer-path-slash", "issuer-exact")
@pytest.mark.parametrize(
    ("listed", "published"),
    [
        ("https://h.example/oauth2", "https://h.example/oauth2/"),
        ("https://h.example/oauth2/", "https://h.example/oauth2"),
        ("https://auth.atlassian.example/1234", "https://auth.atlassian.example"),
        ("https://attacker.example", "https://honest.example"),
        ("https://h.example", "https://h.example:8443"),
        ("https://h.example", "https://h.example/?a=b"),
    ],
    ids=[
        "quirk 2 slash after a path",
        "quirk 2 no slash after a path",
        "quirk 3 parent of the listed issuer",
        "another host",
        "another port",
        "a query",
    ],
)
def test_quirk_2_and_3_another_issuer_is_refused_until_it_is_trusted_exactly(
    listed: str, published: str
) -> None:
    host, _, path = listed.removeprefix("https://").partition("/")
    path = f"/{path.rstrip('/')}" if path else ""
    places = [f"{RFC8414}{path}", f"{OPENID}{path}", *([f"{path}{OPENID}"] if path else [])]
    script = found(listed)
    for place in places:
        script.expects(f"GET https://{host}{place}").answers(200, metadata(published))
    error = script.raises(IssuerMismatch)
    assert "add exactly" in error.advice
    # A path is the server's text, so only `server_message` may hold it.
    assert origin_of(published) == published or published not in f"{error} {error.advice}"
    told = tuple(word for word in error.server_message.split() if word.startswith("https://"))
    assert told[0] == published

    trusting = found(listed, trusted_issuers=told).expects(f"GET https://{host}{places[0]}")
    result = trusting.answers(200, metadata(published)).returns()
    assert result.authorization_server.issuer == published


@covers("issuer-exact")
@pytest.mark.parametrize("trusted", [("https://honest.example",), ("https://evil.example",)])
def test_quirk_3_a_stranger_cannot_borrow_the_name_of_an_issuer_that_is_trusted(
    trusted: tuple[str, ...],
) -> None:
    script = found("https://evil.example", trusted_issuers=trusted)
    for place in (RFC8414, OPENID):
        script.expects(f"GET https://evil.example{place}").answers(200, metadata("https://honest.example"))
    error = script.raises(IssuerMismatch)
    assert "add exactly both issuers, as they are quoted, to" in error.advice
    assert error.server_message == "https://honest.example and https://evil.example"


@covers("issuer-exact")
def test_quirk_3_an_issuer_that_the_operator_names_may_speak_as_one_that_is_trusted() -> None:
    script = play(
        discover_metadata(
            URL,
            NAMED,
            trusted_issuers=("https://honest.example",),
            configured_issuer="https://front.example",
        )
    )
    script.expects(f"{PRM}/mcp").answers(200, prm("https://as.example"))
    script.expects(f"GET https://front.example{RFC8414}").answers(200, metadata("https://honest.example"))
    script.returns()


@covers("issuer-exact")
def test_quirk_3_what_the_advice_says_to_trust_is_what_is_trusted() -> None:
    script = found("https://h.example", trusted_issuers=("https://other.example/a", "https://h.example"))
    script.expects(f"GET https://h.example{RFC8414}").answers(200, metadata("https://OTHER.example/a"))
    script.returns()


@covers("login-without-401")
def test_quirk_4_a_login_that_no_401_began_finds_metadata_under_the_path() -> None:
    script = (
        play(discover_metadata(URL, Challenge()))
        .expects(f"{PRM}/mcp")
        .answers(200, prm("https://as.example"))
    )
    script.expects(f"GET https://as.example{RFC8414}").answers(200, metadata()).returns()


@covers("prm-by-path")
def test_quirk_5_metadata_under_the_path_only_root_is_404_html() -> None:
    script = play(discover_metadata(URL, Challenge((PRM[4:],)))).expects(PRM).answers(404, HTML)
    script.expects(f"{PRM}/mcp").answers(200, prm("https://as.example"))
    script.expects(f"GET https://as.example{RFC8414}").answers(200, metadata()).returns()


@covers("as-path-order")
def test_quirk_6_an_issuer_with_a_path_rfc8414_then_openid_inserted_then_appended() -> None:
    script = play(discover_metadata("https://mcp.stripe.example", Challenge()))
    script.expects("GET https://mcp.stripe.example/.well-known/oauth-protected-resource")
    script.answers(200, sample("stripe/prm"))
    for place in (f"{RFC8414}/mcp", f"{OPENID}/mcp"):
        script.expects(f"GET https://access.stripe.example{place}").answers(404, HTML)
    script.expects(f"GET https://access.stripe.example/mcp{OPENID}")
    result = script.answers(200, metadata("https://access.stripe.example/mcp")).returns()
    assert result.protected_resource is not None
    assert result.protected_resource.scopes_supported == ("mcp",)


@covers("as-openid-only")
def test_quirk_7_openid_configuration_only() -> None:
    script = found("https://as.example").expects(f"GET https://as.example{RFC8414}").answers(404)
    openid = metadata(id_token_signing_alg_values_supported=["RS256"])
    result = script.expects(f"GET https://as.example{OPENID}").answers(200, openid).returns()
    assert result.authorization_server.is_openid


@covers("as-openid-only")
def test_quirk_7_no_endpoint_is_guessed_once_there_is_protected_resource_metadata() -> None:
    script = found("https://as.example").expects(f"GET https://as.example{RFC8414}").answers(404)
    script.expects(f"GET https://as.example{OPENID}").answers(404)
    script.raises(DiscoveryFailed, "as.example publishes no metadata")


@covers("prm-second")
def test_quirk_8_two_resource_metadata_first_one_404() -> None:
    url = "https://mcp.sentry.example/mcp"
    places = "GET https://mcp.sentry.example/.well-known/oauth-protected-resource"
    script = play(discover_metadata(url, read_challenge([sample("sentry/challenge").decode()])))
    script.expects(f"{places}/gone").answers(404)
    script.expects(f"{places}/mcp").answers(200, prm("https://as.example", resource=url))
    script.expects(f"GET https://as.example{RFC8414}").answers(200, metadata()).returns()


@covers("resource-covers")
def test_quirk_10_resource_is_the_origin_and_stays_verbatim() -> None:
    script = found("https://as.example", resource="https://MCP.example/")
    script.expects(f"GET https://as.example{RFC8414}").answers(200, metadata())
    result = script.returns()
    assert result.protected_resource is not None
    assert result.protected_resource.resource == "https://MCP.example/"


@covers("resource-covers", "resource-per-path")
@pytest.mark.parametrize("resource", ["https://other.example/mcp", "https://mcp.example/other"])
def test_quirk_10_and_11_a_resource_that_is_another_is_refused(resource: str) -> None:
    script = found("https://as.example", resource=resource)
    script.expects(PRM).answers(404).raises(DiscoveryFailed, "not for the requested server")


@covers("server-query")
def test_quirk_12_server_url_with_a_query() -> None:
    script = play(discover_metadata(f"{URL}?project_ref=1", Challenge()))
    script.expects(f"{PRM}/mcp?project_ref=1").answers(404)
    script.expects(f"{PRM}/mcp").answers(200, prm("https://as.example"))
    script.expects(f"GET https://as.example{RFC8414}").answers(200, metadata()).returns()


def test_a_server_of_2025_03_26_without_any_metadata_gets_the_default_endpoints() -> None:
    script = (
        play(discover_metadata(URL, Challenge())).expects(f"{PRM}/mcp").answers(404).expects(PRM).answers(404)
    )
    script.expects(f"GET https://mcp.example{RFC8414}").answers(404)
    result = script.expects(f"GET https://mcp.example{OPENID}").answers(404).returns()
    assert result.protected_resource is None
    assert result.authorization_server.uses_default_endpoints
    assert result.authorization_server.token_endpoint == "https://mcp.example/token"

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
from tests.exchange_script import read_sample, script_exchange
from tests.oauth.builders import CHALLENGE, HTML, OPENID, PRM, RFC8414, URL, metadata, prm, script_discovery
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
def test_quirk_1_a_trailing_slash_of_an_issuer_without_path_is_accepted(listed: str, published: str) -> None:
    script = script_discovery(listed).expects(f"GET https://accounts.google.example{RFC8414}")
    result = script.responds(200, metadata(published)).returns()
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
def test_quirk_2_and_3_another_issuer_is_refused_unless_exactly_trusted(listed: str, published: str) -> None:
    host, _, path = listed.removeprefix("https://").partition("/")
    path = f"/{path.rstrip('/')}" if path else ""
    urls = [f"{RFC8414}{path}", f"{OPENID}{path}", *([f"{path}{OPENID}"] if path else [])]
    script = script_discovery(listed)
    for url in urls:
        script.expects(f"GET https://{host}{url}").responds(200, metadata(published))
    error = script.raises(IssuerMismatch)
    assert "add exactly" in error.advice
    # A path is the server's text, so only `server_message` may hold it.
    assert origin_of(published) == published or published not in f"{error} {error.advice}"
    quoted_issuers = tuple(word for word in error.server_message.split() if word.startswith("https://"))
    assert quoted_issuers[0] == published

    trusting_script = script_discovery(listed, trusted_issuers=quoted_issuers).expects(
        f"GET https://{host}{urls[0]}"
    )
    result = trusting_script.responds(200, metadata(published)).returns()
    assert result.authorization_server.issuer == published


@covers("issuer-exact")
@pytest.mark.parametrize("trusted", [("https://honest.example",), ("https://evil.example",)])
def test_quirk_3_an_untrusted_server_cannot_claim_a_trusted_issuer(
    trusted: tuple[str, ...],
) -> None:
    script = script_discovery("https://evil.example", trusted_issuers=trusted)
    for url in (RFC8414, OPENID):
        script.expects(f"GET https://evil.example{url}").responds(200, metadata("https://honest.example"))
    error = script.raises(IssuerMismatch)
    assert "add exactly both issuers, as they are quoted, to" in error.advice
    assert error.server_message == "https://honest.example and https://evil.example"


@covers("issuer-exact")
def test_quirk_3_a_configured_server_may_claim_a_trusted_issuer() -> None:
    script = script_exchange(
        discover_metadata(
            URL,
            CHALLENGE,
            trusted_issuers=("https://honest.example",),
            configured_issuer="https://front.example",
        )
    )
    script.expects(f"{PRM}/mcp").responds(200, prm("https://as.example"))
    script.expects(f"GET https://front.example{RFC8414}").responds(200, metadata("https://honest.example"))
    script.returns()


@covers("issuer-exact")
def test_quirk_3_the_trusted_issuers_of_the_advice_are_accepted() -> None:
    script = script_discovery(
        "https://h.example", trusted_issuers=("https://other.example/a", "https://h.example")
    )
    script.expects(f"GET https://h.example{RFC8414}").responds(200, metadata("https://OTHER.example/a"))
    script.returns()


@covers("login-without-401")
def test_quirk_4_discovery_without_a_challenge_finds_metadata_under_the_path() -> None:
    script = (
        script_exchange(discover_metadata(URL, Challenge()))
        .expects(f"{PRM}/mcp")
        .responds(200, prm("https://as.example"))
    )
    script.expects(f"GET https://as.example{RFC8414}").responds(200, metadata()).returns()


@covers("prm-by-path")
def test_quirk_5_metadata_only_under_the_path_is_found() -> None:
    script = script_exchange(discover_metadata(URL, Challenge((PRM[4:],)))).expects(PRM).responds(404, HTML)
    script.expects(f"{PRM}/mcp").responds(200, prm("https://as.example"))
    script.expects(f"GET https://as.example{RFC8414}").responds(200, metadata()).returns()


@covers("as-path-order")
def test_quirk_6_the_metadata_urls_of_an_issuer_with_a_path_are_tried_in_order() -> None:
    script = script_exchange(discover_metadata("https://mcp.stripe.example", Challenge()))
    script.expects("GET https://mcp.stripe.example/.well-known/oauth-protected-resource")
    script.responds(200, read_sample("stripe/prm"))
    for url in (f"{RFC8414}/mcp", f"{OPENID}/mcp"):
        script.expects(f"GET https://access.stripe.example{url}").responds(404, HTML)
    script.expects(f"GET https://access.stripe.example/mcp{OPENID}")
    result = script.responds(200, metadata("https://access.stripe.example/mcp")).returns()
    assert result.protected_resource is not None
    assert result.protected_resource.scopes_supported == ("mcp",)


@covers("as-openid-only")
def test_quirk_7_a_server_with_only_openid_configuration_is_found() -> None:
    script = script_discovery("https://as.example").expects(f"GET https://as.example{RFC8414}").responds(404)
    openid = metadata(id_token_signing_alg_values_supported=["RS256"])
    result = script.expects(f"GET https://as.example{OPENID}").responds(200, openid).returns()
    assert result.authorization_server.is_openid


@covers("as-openid-only")
def test_quirk_7_with_protected_resource_metadata_no_endpoint_is_guessed() -> None:
    script = script_discovery("https://as.example").expects(f"GET https://as.example{RFC8414}").responds(404)
    script.expects(f"GET https://as.example{OPENID}").responds(404)
    script.raises(DiscoveryFailed, "as.example publishes no metadata")


@covers("prm-second")
def test_quirk_8_the_second_resource_metadata_url_is_tried_after_a_404() -> None:
    url = "https://mcp.sentry.example/mcp"
    base = "GET https://mcp.sentry.example/.well-known/oauth-protected-resource"
    script = script_exchange(
        discover_metadata(url, read_challenge([read_sample("sentry/challenge").decode()]))
    )
    script.expects(f"{base}/gone").responds(404)
    script.expects(f"{base}/mcp").responds(200, prm("https://as.example", resource=url))
    script.expects(f"GET https://as.example{RFC8414}").responds(200, metadata()).returns()


@covers("resource-covers")
def test_quirk_10_an_origin_as_resource_is_kept_verbatim() -> None:
    script = script_discovery("https://as.example", resource="https://MCP.example/")
    script.expects(f"GET https://as.example{RFC8414}").responds(200, metadata())
    result = script.returns()
    assert result.protected_resource is not None
    assert result.protected_resource.resource == "https://MCP.example/"


@covers("resource-covers", "resource-per-path")
@pytest.mark.parametrize("resource", ["https://other.example/mcp", "https://mcp.example/other"])
def test_quirk_10_and_11_metadata_of_another_resource_is_refused(resource: str) -> None:
    script = script_discovery("https://as.example", resource=resource)
    script.expects(PRM).responds(404).raises(DiscoveryFailed, "not for the requested server")


@covers("server-query")
def test_quirk_12_metadata_of_a_url_with_a_query_is_found() -> None:
    script = script_exchange(discover_metadata(f"{URL}?project_ref=1", Challenge()))
    script.expects(f"{PRM}/mcp?project_ref=1").responds(404)
    script.expects(f"{PRM}/mcp").responds(200, prm("https://as.example"))
    script.expects(f"GET https://as.example{RFC8414}").responds(200, metadata()).returns()


def test_a_server_without_any_metadata_gets_the_default_endpoints() -> None:
    script = (
        script_exchange(discover_metadata(URL, Challenge()))
        .expects(f"{PRM}/mcp")
        .responds(404)
        .expects(PRM)
        .responds(404)
    )
    script.expects(f"GET https://mcp.example{RFC8414}").responds(404)
    result = script.expects(f"GET https://mcp.example{OPENID}").responds(404).returns()
    assert result.protected_resource is None
    assert result.authorization_server.uses_default_endpoints
    assert result.authorization_server.token_endpoint == "https://mcp.example/token"

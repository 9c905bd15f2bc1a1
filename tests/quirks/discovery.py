"""Quirks 1 to 13: deviations during discovery."""

from __future__ import annotations

import httpx
import pytest

from hermes_mcp_auth_remote.errors import PkceNotSupported, ServerError
from tests.quirks.harness import QuirkHarness, quirk_case


@quirk_case(1, "the metadata's issuer has a trailing slash that the resource's list does not have: accepted")
def trailing_slash(harness: QuirkHarness) -> None:
    harness.change_behaviour(metadata_issuer=f"{harness.demo.issuer.rstrip('/')}/")
    assert harness.log_in().issuer == f"{harness.demo.issuer.rstrip('/')}/"


@quirk_case(2, "an issuer with a path differs by a slash: refused unless trusted_issuers names it")
def slash_after_a_path(harness: QuirkHarness) -> None:
    harness.change_behaviour(issuer_path="/oauth2")
    published = f"{harness.demo.issuer}/"
    harness.change_behaviour(metadata_issuer=published)
    with pytest.raises(ServerError) as refused:
        harness.start_login()
    assert "trusted_issuers" in refused.value.advice
    harness.configure(trusted_issuers=frozenset({published}))
    harness.log_in()
    assert harness.credentials.binding is not None
    assert harness.credentials.binding.issuer == published


@quirk_case(
    3,
    "the metadata's issuer is the parent of the listed one: refused unless trusted_issuers names it",
)
def parent_issuer(harness: QuirkHarness) -> None:
    origin = harness.demo.issuer
    harness.change_behaviour(issuer_path="/a-tenant", metadata_issuer=origin)
    for trusted in (frozenset[str](), frozenset({f"{origin}/a"})):
        harness.configure(trusted_issuers=trusted)
        with pytest.raises(ServerError):
            harness.start_login()
    harness.configure(trusted_issuers=frozenset({origin}))
    assert harness.log_in().issuer == origin


@quirk_case(4, "only tools/call gives 401, initialize and tools/list give 200: discovery works anyway")
def open_methods(harness: QuirkHarness) -> None:
    harness.change_behaviour(
        open_methods=frozenset({"initialize", "tools/list"}), challenge_names_metadata=False
    )
    harness.server = type(harness.server)("notes", harness.demo.mcp_url)
    assert harness.log_in().issuer == harness.demo.issuer


@quirk_case(5, "protected resource metadata only under the path, the root is a 404: found")
def metadata_under_the_path(harness: QuirkHarness) -> None:
    harness.change_behaviour(challenge_names_metadata=False, resource_metadata_locations=("path",))
    root = harness.demo.resources.origin + "/.well-known/oauth-protected-resource"
    assert httpx.get(root).status_code == 404
    assert harness.log_in().issuer == harness.demo.issuer


@quirk_case(6, "an issuer with a path: RFC 8414, then OpenID inserted, then OpenID appended")
def issuer_with_a_path(harness: QuirkHarness) -> None:
    for location in ("rfc8414", "openid_inserted", "openid_appended"):
        harness.change_behaviour(issuer_path="/mcp", metadata_locations=(location,))
        assert harness.log_in().issuer == harness.demo.issuer


@quirk_case(7, "only openid-configuration exists: used; /authorize at the resource is never guessed")
def openid_only(harness: QuirkHarness) -> None:
    harness.change_behaviour(metadata_locations=("openid_inserted",))
    harness.log_in()
    harness.change_behaviour(metadata_locations=())
    with pytest.raises(ServerError):
        harness.start_login()
    assert len(harness.requests_of("authorization")) == 1


@quirk_case(8, "two resource_metadata parameters, the first one 404: the second is tried")
def two_resource_metadata(harness: QuirkHarness) -> None:
    line = 'Bearer resource_metadata="{metadata}/nowhere", resource_metadata="{metadata}"'
    harness.change_behaviour(challenge_lines=(line,))
    assert harness.log_in().issuer == harness.demo.issuer
    requests = harness.requests_of("protected_resource_metadata")
    assert [request.status for request in requests] == [404, 200]


@quirk_case(9, "single quotes, odd spaces, several schemes, several header lines: Bearer is still read")
def odd_challenge(harness: QuirkHarness) -> None:
    bearer = "Bearer   resource_metadata='{metadata}' ,  scope='mcp:write'"
    harness.change_behaviour(challenge_lines=('Basic realm="x", Digest nonce=y', bearer))
    harness.log_in()
    assert "mcp:write" in harness.requests_of("authorization")[0].query["scope"].split()


@quirk_case(10, "the resource is the server's origin: sent as published; an unrelated origin is refused")
def origin_as_resource(harness: QuirkHarness) -> None:
    harness.change_behaviour(resource_identifier="origin")
    harness.log_in()
    assert harness.requests_of("token")[0].form["resource"] == harness.demo.resources.origin
    harness.change_behaviour(resource_overrides={"resource": "https://unrelated.example"})
    with pytest.raises(ServerError):
        harness.start_login()


@quirk_case(11, "two servers on one host with different paths: separate credentials")
def two_paths(harness: QuirkHarness) -> None:
    harness.log_in()
    first = harness.credentials
    harness.server = type(harness.server)("other", harness.demo.mcp_url)
    assert harness.credentials.tokens is None
    harness.log_in()
    assert harness.credentials.tokens is not None
    assert first.tokens is not None
    assert first.binding is not None
    assert harness.credentials.binding is not None
    assert harness.credentials.tokens.access_token != first.tokens.access_token
    assert (first.binding.resource, harness.credentials.binding.resource) == (
        harness.demo.ping_url,
        harness.demo.mcp_url,
    )


@quirk_case(12, "the server's URL has a query: kept in requests to the server, discovery works")
def server_query(harness: QuirkHarness) -> None:
    harness.server = type(harness.server)("notes", f"{harness.demo.ping_url}?project_ref=1")
    harness.log_in()
    assert harness.demo.authorization_server.requests[0].query == {"project_ref": "1"}
    assert harness.requests_of("token")[0].form["resource"] == harness.demo.ping_url


@quirk_case(13, "code_challenge_methods_supported is missing: refused; with the override, S256 is sent")
def no_pkce_advertised(harness: QuirkHarness) -> None:
    harness.change_behaviour(pkce_advertised=False)
    with pytest.raises(PkceNotSupported):
        harness.start_login()
    harness.configure(allow_missing_pkce=True)
    harness.log_in()
    assert harness.requests_of("authorization")[0].query["code_challenge_method"] == "S256"
    assert "code_verifier" in harness.requests_of("token")[0].form

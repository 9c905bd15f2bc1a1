"""Quirks 1 to 13: deviations during discovery."""

from __future__ import annotations

import httpx
import pytest

from hermes_mcp_auth_remote.errors import PkceNotSupported, ServerError
from tests.quirks.stage import Stage, quirk


@quirk(1, "the metadata's issuer has a trailing slash that the resource's list does not have: accepted")
def slash(stage: Stage) -> None:
    stage.plays(metadata_issuer=f"{stage.demo.issuer.rstrip('/')}/")
    assert stage.connect().issuer == f"{stage.demo.issuer.rstrip('/')}/"


@quirk(2, "an issuer with a path differs by a slash: refused unless trusted_issuers names it")
def slash_after_a_path(stage: Stage) -> None:
    stage.plays(issuer_path="/oauth2")
    published = f"{stage.demo.issuer}/"
    stage.plays(metadata_issuer=published)
    with pytest.raises(ServerError) as refused:
        stage.begin()
    assert "trusted_issuers" in refused.value.advice
    stage.configure(trusted_issuers=frozenset({published}))
    stage.connect()
    assert stage.stored.binding is not None
    assert stage.stored.binding.issuer == published


@quirk(
    3,
    "the metadata's issuer is the parent of the listed one: refused unless trusted_issuers names it",
)
def parent_issuer(stage: Stage) -> None:
    origin = stage.demo.issuer
    stage.plays(issuer_path="/a-tenant", metadata_issuer=origin)
    for trusted in (frozenset[str](), frozenset({f"{origin}/a"})):
        stage.configure(trusted_issuers=trusted)
        with pytest.raises(ServerError):
            stage.begin()
    stage.configure(trusted_issuers=frozenset({origin}))
    assert stage.connect().issuer == origin


@quirk(4, "only tools/call gives 401, initialize and tools/list give 200: discovery works anyway")
def open_methods(stage: Stage) -> None:
    stage.plays(open_methods=frozenset({"initialize", "tools/list"}), challenge_names_metadata=False)
    stage.server = type(stage.server)("notes", stage.demo.mcp_url)
    assert stage.connect().issuer == stage.demo.issuer


@quirk(5, "protected resource metadata only under the path, the root is a 404: found")
def under_the_path(stage: Stage) -> None:
    stage.plays(challenge_names_metadata=False, resource_metadata_locations=("path",))
    root = stage.demo.resources.origin + "/.well-known/oauth-protected-resource"
    assert httpx.get(root).status_code == 404
    assert stage.connect().issuer == stage.demo.issuer


@quirk(6, "an issuer with a path: RFC 8414, then OpenID inserted, then OpenID appended")
def issuer_with_a_path(stage: Stage) -> None:
    for place in ("rfc8414", "openid_inserted", "openid_appended"):
        stage.plays(issuer_path="/mcp", metadata_locations=(place,))
        assert stage.connect().issuer == stage.demo.issuer


@quirk(7, "only openid-configuration exists: used; /authorize at the resource is never guessed")
def openid_only(stage: Stage) -> None:
    stage.plays(metadata_locations=("openid_inserted",))
    stage.connect()
    stage.plays(metadata_locations=())
    with pytest.raises(ServerError):
        stage.begin()
    assert len(stage.asked("authorization")) == 1


@quirk(8, "two resource_metadata parameters, the first one 404: the second is tried")
def two_resource_metadata(stage: Stage) -> None:
    line = 'Bearer resource_metadata="{metadata}/nowhere", resource_metadata="{metadata}"'
    stage.plays(challenge_lines=(line,))
    assert stage.connect().issuer == stage.demo.issuer
    asked = stage.asked("protected_resource_metadata")
    assert [request.status for request in asked] == [404, 200]


@quirk(9, "single quotes, odd spaces, several schemes, several header lines: Bearer is still read")
def odd_challenge(stage: Stage) -> None:
    bearer = "Bearer   resource_metadata='{metadata}' ,  scope='mcp:write'"
    stage.plays(challenge_lines=('Basic realm="x", Digest nonce=y', bearer))
    stage.connect()
    assert "mcp:write" in stage.asked("authorization")[0].query["scope"].split()


@quirk(10, "the resource is the server's origin: sent as published; an unrelated origin is refused")
def origin_as_resource(stage: Stage) -> None:
    stage.plays(resource_identifier="origin")
    stage.connect()
    assert stage.asked("token")[0].form["resource"] == stage.demo.resources.origin
    stage.plays(resource_overrides={"resource": "https://unrelated.example"})
    with pytest.raises(ServerError):
        stage.begin()


@quirk(11, "two servers on one host with different paths: separate credentials")
def two_paths(stage: Stage) -> None:
    stage.connect()
    first = stage.stored
    stage.server = type(stage.server)("other", stage.demo.mcp_url)
    assert stage.stored.tokens is None
    stage.connect()
    assert stage.stored.tokens is not None
    assert first.tokens is not None
    assert first.binding is not None
    assert stage.stored.binding is not None
    assert stage.stored.tokens.access_token != first.tokens.access_token
    assert (first.binding.resource, stage.stored.binding.resource) == (
        stage.demo.ping_url,
        stage.demo.mcp_url,
    )


@quirk(12, "the server's URL has a query: kept in requests to the server, discovery works")
def query(stage: Stage) -> None:
    stage.server = type(stage.server)("notes", f"{stage.demo.ping_url}?project_ref=1")
    stage.connect()
    assert stage.demo.authorization_server.requests[0].query == {"project_ref": "1"}
    assert stage.asked("token")[0].form["resource"] == stage.demo.ping_url


@quirk(13, "code_challenge_methods_supported is missing: refused; with the override, S256 is sent")
def no_pkce_advertised(stage: Stage) -> None:
    stage.plays(pkce_advertised=False)
    with pytest.raises(PkceNotSupported):
        stage.begin()
    stage.configure(allow_missing_pkce=True)
    stage.connect()
    assert stage.asked("authorization")[0].query["code_challenge_method"] == "S256"
    assert "code_verifier" in stage.asked("token")[0].form

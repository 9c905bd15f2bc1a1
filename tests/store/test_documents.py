from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnwritable, clean_server_message
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import DevicePollParameters, PollState
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, authorization_server_from_document
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store import MAX_FILE_BYTES
from hermes_mcp_auth_remote.store.codec import (
    client_document,
    decode_document,
    encode_document,
    metadata_document,
    read_client,
    read_metadata,
    read_tokens,
)
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.login_codec import login_document, read_login, without_secrets
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret
from tests.store.given import NOW, REDIRECT_URI, server_of

pytestmark = pytest.mark.slow

TIMES = st.floats(min_value=0, max_value=4e9)
TEXTS = st.text(max_size=20)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
SECRETS = st.builds(Secret, VISIBLE)
# RFC 6749 section 3.3: no quotation mark and no backslash in a scope.
SCOPES = st.frozensets(st.from_regex(r"[a-z:/.*_-]{1,12}", fullmatch=True), min_size=1, max_size=4)
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(TEXTS, JSON, max_size=4)
FLAT_DOCUMENTS = st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=3), max_size=4)


@st.composite
def authorization_servers(draw: st.DrawFn) -> AuthorizationServer:
    host = draw(st.sampled_from(["as.example", "login.example:8443", "127.0.0.1"]))
    known: dict[str, object] = {
        "issuer": f"https://{host}{draw(st.sampled_from(['', '/', '/tenant']))}",
        "authorization_endpoint": f"https://{host}/authorize",
        "token_endpoint": f"https://{host}/token",
    }
    for name in ("registration_endpoint", "revocation_endpoint", "device_authorization_endpoint"):
        if draw(st.booleans()):
            known[name] = f"https://{host}/{name}"
    for name in ("scopes_supported", "code_challenge_methods_supported"):
        if draw(st.booleans()):
            known[name] = draw(st.lists(VISIBLE, max_size=3))
    flag = "authorization_response_iss_parameter_supported"
    return authorization_server_from_document({**draw(FLAT_DOCUMENTS), **known, flag: draw(st.booleans())})


CLIENTS = st.builds(
    Client,
    client_id=VISIBLE,
    client_secret=st.none() | SECRETS,
    auth_method=st.sampled_from(["client_secret_post", "client_secret_basic", "private_key_jwt"]),
    redirect_uris=st.just((REDIRECT_URI,)),
    secret_expires_at=st.none() | st.integers(1, 3_000_000_000).map(float),
    is_registered=st.booleans(),
    document=DOCUMENTS,
)
REQUESTS = st.builds(
    AuthorizationRequest,
    url=TEXTS,
    state=SECRETS,
    code_verifier=SECRETS,
    redirect_uri=TEXTS,
    client=CLIENTS,
    issuer=TEXTS,
    is_iss_required=st.booleans(),
    token_endpoint=TEXTS,
    authorization_endpoint=TEXTS,
    resource=st.none() | TEXTS,
    scope=st.none() | SCOPES,
    trusted_issuers=st.frozensets(TEXTS, max_size=2),
    lifetime_seconds=st.none() | TIMES,
    uses_dpop=st.booleans(),
)
AUTHORIZATIONS = st.builds(
    DeviceAuthorization,
    device_code=SECRETS,
    user_code=VISIBLE,
    verification_uri=TEXTS,
    verification_uri_complete=st.none() | TEXTS,
    lifetime_seconds=TIMES,
    interval_seconds=TIMES,
)
CODE_LOGINS = st.builds(
    Login,
    id=VISIBLE,
    key=st.builds(CredentialKey, TEXTS, st.none() | TEXTS),
    server_url=TEXTS,
    request=REQUESTS,
    authorization_server=authorization_servers(),
    origin=st.builds(Origin, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    started_at=TIMES,
    expires_at=TIMES,
    status=st.sampled_from(["waiting", "exchanging", "done", "failed", "expired", "cancelled"]),
    added_scope=st.frozensets(VISIBLE, max_size=2),
    paste_attempts=st.integers(0, 5),
    failure=st.none() | st.tuples(TEXTS, TEXTS),
    failure_code=st.none() | TEXTS,
    server_message=VISIBLE.map(clean_server_message),
    message_ids=st.lists(VISIBLE, max_size=2).map(tuple),
).map(lambda login: login if login.failure else replace(login, server_message=""))


@st.composite
def device_logins(draw: st.DrawFn) -> Login:
    login = draw(CODE_LOGINS)
    known = login.request
    asked = DevicePollParameters(
        authorization=draw(AUTHORIZATIONS),
        client=known.client,
        issuer=known.issuer,
        token_endpoint=known.token_endpoint,
        expires_at=draw(TIMES),
        resource=known.resource,
        scope=known.scope,
    )
    pending = PollState(asked, draw(TIMES), draw(TIMES), draw(st.integers(0, 9)))
    return replace(login, poll_state=pending, polled_by=draw(st.none() | VISIBLE))


LOGINS = CODE_LOGINS | device_logins()
BINDINGS = st.builds(
    Binding,
    server_name=TEXTS,
    server_url=TEXTS,
    issuer=TEXTS,
    client_id=TEXTS,
    resource=st.none() | TEXTS,
    requested_scope=st.none() | st.frozensets(VISIBLE, max_size=3),
    account=st.none() | TEXTS,
    connected_at=st.none() | TIMES,
    refreshed_at=st.none() | TIMES,
    refresh_expires_at=st.none() | TIMES,
    login_needed=st.none() | TEXTS,
    config_files=st.none() | TEXTS,
)
TOKENS = st.builds(
    Tokens,
    access_token=SECRETS,
    refresh_token=st.none() | SECRETS,
    scope=st.none() | SCOPES,
    expires_at=st.none() | st.integers(1, 1_000_000).map(lambda seconds: NOW + seconds),
    obtained_at=st.just(NOW),
    scheme=st.sampled_from(["Bearer", "DPoP"]),
)


def test_every_field_of_what_is_stored_is_generated_here() -> None:
    # Otherwise a field that is added to a class but not to its codec would go unnoticed.
    known = {
        Login: 17,
        AuthorizationRequest: 14,
        Client: 7,
        Binding: 12,
        Tokens: 8,
        Origin: 5,
        CredentialKey: 2,
    }
    known |= {DeviceAuthorization: 6, DevicePollParameters: 7, PollState: 4}
    assert {kind: len(fields(kind)) for kind in known} == known


@given(LOGINS)
def test_a_login_survives_the_way_to_the_disk_and_back(login: Login) -> None:
    document = decode_document(encode_document(login_document(login)), "a path")
    assert read_login(document, "a path") == login


@given(LOGINS)
def test_a_login_without_its_secrets_holds_none_and_is_else_the_same(login: Login) -> None:
    bare = without_secrets(login)
    request = bare.request
    assert not request.state
    assert not request.code_verifier
    assert not request.client.client_secret
    assert not request.url
    if bare.poll_state is not None:
        code = bare.poll_state.parameters.authorization
        assert [code.device_code, code.user_code, code.verification_uri_complete] == [Secret(""), "", None]
        assert not bare.poll_state.parameters.client.client_secret
    rest = replace(bare, request=login.request, poll_state=login.poll_state, polled_by=login.polled_by)
    assert rest == login
    assert without_secrets(bare) == bare


@given(DOCUMENTS, st.sampled_from(["request", "client", "origin", "authorization_server", None]))
def test_junk_in_a_logins_file_is_corrupt_and_nothing_else(junk: dict[str, object], part: str | None) -> None:
    document = {"version": 1, "id": "x"} | ({part: junk} if part else junk)
    with pytest.raises(StoreCorrupt, match="a path"):
        read_login(document, "a path")


@given(CLIENTS)
def test_a_client_survives_the_way_to_the_disk_and_back(client: Client) -> None:
    found = read_client(decode_document(encode_document(client_document(client)), "a path"), "a path")
    assert replace(found, document={}) == replace(client, document={})
    assert client_document(found) == client_document(client)


@given(authorization_servers())
def test_metadata_survive_the_way_to_the_disk_and_back(server: AuthorizationServer) -> None:
    assert (
        read_metadata(decode_document(encode_document(metadata_document(server)), "a path"), "a path")
        == server
    )


def test_of_metadata_only_values_and_lists_of_values_are_kept() -> None:
    published = {
        **server_of().document,
        "deep": [[1]],
        "wide": {"a": 1},
        "mixed": ["a", {}],
        "own": [1, None],
    }
    kept = metadata_document(replace(server_of(), document=published))
    assert kept == {**server_of().document, "own": [1, None]}


def test_what_is_nested_deeply_is_not_larger_on_the_disk_than_on_the_wire() -> None:
    nested: object = [1] * 30_000
    for _ in range(40):
        nested = [nested]
    client = Client("client-0", document={"jwks": nested})
    assert len(encode_document(client_document(client))) < 2 * 30_000 * len("1, ")


@pytest.mark.parametrize("is_nested", [False, True])
def test_what_could_not_be_read_again_is_not_written(*, is_nested: bool) -> None:
    value: object = "x" * MAX_FILE_BYTES
    if is_nested:
        value = 1
        for _ in range(100_000):
            value = [value]
    with pytest.raises(StoreUnwritable, match="above 1 MiB"):
        encode_document({"member": value})


def test_metadata_that_were_made_by_hand_survive_too() -> None:
    by_hand = AuthorizationServer(
        issuer="https://as.example",
        authorization_endpoint="https://as.example/authorize",
        token_endpoint="https://as.example/token",
        scopes_supported=("read",),
        require_pushed_authorization_requests=True,
    )
    assert replace(read_metadata(metadata_document(by_hand), "a path"), document={}) == by_hand


@given(st.dictionaries(st.sampled_from([*"ab", "access_token", "expires_at", "expires_in", "scope"]), JSON))
def test_a_tokens_file_of_any_content_is_read_or_corrupt(document: dict[str, object]) -> None:
    try:
        tokens = read_tokens(document, NOW, "a path")
    except StoreCorrupt:
        return
    assert tokens.access_token.reveal() == document["access_token"]


@settings(max_examples=25, deadline=None)
@given(TOKENS, CLIENTS, BINDINGS, st.none() | TEXTS)
def test_credentials_survive_the_way_to_the_disk_and_back(
    tokens: Tokens, client: Client, binding: Binding, owner: str | None
) -> None:
    server = server_of()
    binding = replace(binding, issuer=server.issuer, client_id=client.client_id)
    tokens = replace(tokens, account=binding.account, refresh_expires_at=binding.refresh_expires_at)
    key = CredentialKey(binding.server_name, owner)
    with tempfile.TemporaryDirectory() as home:
        FileStore(Path(home)).save_login(key, Credentials(tokens, client, server, binding))
        found = FileStore(Path(home)).read(key)
        assert FileStore(Path(home)).list_keys() == [key]
    assert found.client is not None
    assert found.tokens is not None
    assert found.authorization_server == server
    assert found.binding == binding
    assert replace(found.client, document={}) == replace(client, document={})
    # Without an expiry in the file, `obtained_at` is the file's modification time.
    unknown = tokens.expires_at is None
    assert replace(found.tokens, obtained_at=NOW if unknown else found.tokens.obtained_at) == tokens

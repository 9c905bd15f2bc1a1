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
from tests.store.builders import NOW, REDIRECT_URI, build_authorization_server

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
    members: dict[str, object] = {
        "issuer": f"https://{host}{draw(st.sampled_from(['', '/', '/tenant']))}",
        "authorization_endpoint": f"https://{host}/authorize",
        "token_endpoint": f"https://{host}/token",
    }
    for name in ("registration_endpoint", "revocation_endpoint", "device_authorization_endpoint"):
        if draw(st.booleans()):
            members[name] = f"https://{host}/{name}"
    for name in ("scopes_supported", "code_challenge_methods_supported"):
        if draw(st.booleans()):
            members[name] = draw(st.lists(VISIBLE, max_size=3))
    flag = "authorization_response_iss_parameter_supported"
    return authorization_server_from_document({**draw(FLAT_DOCUMENTS), **members, flag: draw(st.booleans())})


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
    request = login.request
    parameters = DevicePollParameters(
        authorization=draw(AUTHORIZATIONS),
        client=request.client,
        issuer=request.issuer,
        token_endpoint=request.token_endpoint,
        expires_at=draw(TIMES),
        resource=request.resource,
        scope=request.scope,
    )
    poll_state = PollState(parameters, draw(TIMES), draw(TIMES), draw(st.integers(0, 9)))
    return replace(login, poll_state=poll_state, polled_by=draw(st.none() | VISIBLE))


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


def test_the_strategies_generate_every_stored_field() -> None:
    # Otherwise a field that is added to a class but not to its codec would go unnoticed.
    field_counts = {
        Login: 17,
        AuthorizationRequest: 14,
        Client: 7,
        Binding: 12,
        Tokens: 8,
        Origin: 5,
        CredentialKey: 2,
    }
    field_counts |= {DeviceAuthorization: 6, DevicePollParameters: 7, PollState: 4}
    assert {kind: len(fields(kind)) for kind in field_counts} == field_counts


@given(LOGINS)
def test_a_login_is_encoded_and_decoded_unchanged(login: Login) -> None:
    document = decode_document(encode_document(login_document(login)), "a path")
    assert read_login(document, "a path") == login


@given(LOGINS)
def test_without_secrets_removes_only_the_secrets(login: Login) -> None:
    stripped = without_secrets(login)
    request = stripped.request
    assert not request.state
    assert not request.code_verifier
    assert not request.client.client_secret
    assert not request.url
    if stripped.poll_state is not None:
        code = stripped.poll_state.parameters.authorization
        assert [code.device_code, code.user_code, code.verification_uri_complete] == [Secret(""), "", None]
        assert not stripped.poll_state.parameters.client.client_secret
    rest = replace(stripped, request=login.request, poll_state=login.poll_state, polled_by=login.polled_by)
    assert rest == login
    assert without_secrets(stripped) == stripped


@given(DOCUMENTS, st.sampled_from(["request", "client", "origin", "authorization_server", None]))
def test_an_invalid_login_document_raises_store_corrupt(junk: dict[str, object], part: str | None) -> None:
    document = {"version": 1, "id": "x"} | ({part: junk} if part else junk)
    with pytest.raises(StoreCorrupt, match="a path"):
        read_login(document, "a path")


@given(CLIENTS)
def test_a_client_is_encoded_and_decoded_unchanged(client: Client) -> None:
    stored = read_client(decode_document(encode_document(client_document(client)), "a path"), "a path")
    assert replace(stored, document={}) == replace(client, document={})
    assert client_document(stored) == client_document(client)


@given(authorization_servers())
def test_metadata_are_encoded_and_decoded_unchanged(server: AuthorizationServer) -> None:
    assert (
        read_metadata(decode_document(encode_document(metadata_document(server)), "a path"), "a path")
        == server
    )


def test_only_scalars_and_lists_of_scalars_of_metadata_are_stored() -> None:
    published = {
        **build_authorization_server().document,
        "deep": [[1]],
        "wide": {"a": 1},
        "mixed": ["a", {}],
        "own": [1, None],
    }
    document = metadata_document(replace(build_authorization_server(), document=published))
    assert document == {**build_authorization_server().document, "own": [1, None]}


def test_a_deeply_nested_document_is_stored_compactly() -> None:
    nested: object = [1] * 30_000
    for _ in range(40):
        nested = [nested]
    client = Client("client-0", document={"jwks": nested})
    assert len(encode_document(client_document(client))) < 2 * 30_000 * len("1, ")


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_document_above_the_read_limit_is_not_written(*, is_nested: bool) -> None:
    value: object = "x" * MAX_FILE_BYTES
    if is_nested:
        value = 1
        for _ in range(100_000):
            value = [value]
    with pytest.raises(StoreUnwritable, match="above 1 MiB"):
        encode_document({"member": value})


def test_metadata_without_a_document_are_encoded_and_decoded_unchanged() -> None:
    server = AuthorizationServer(
        issuer="https://as.example",
        authorization_endpoint="https://as.example/authorize",
        token_endpoint="https://as.example/token",
        scopes_supported=("read",),
        require_pushed_authorization_requests=True,
    )
    assert replace(read_metadata(metadata_document(server), "a path"), document={}) == server


@given(st.dictionaries(st.sampled_from([*"ab", "access_token", "expires_at", "expires_in", "scope"]), JSON))
def test_any_tokens_document_is_read_or_raises_store_corrupt(document: dict[str, object]) -> None:
    try:
        tokens = read_tokens(document, NOW, "a path")
    except StoreCorrupt:
        return
    assert tokens.access_token.reveal() == document["access_token"]


@settings(max_examples=25, deadline=None)
@given(TOKENS, CLIENTS, BINDINGS, st.none() | TEXTS)
def test_credentials_are_stored_and_read_unchanged(
    tokens: Tokens, client: Client, binding: Binding, owner: str | None
) -> None:
    server = build_authorization_server()
    binding = replace(binding, issuer=server.issuer, client_id=client.client_id)
    tokens = replace(tokens, account=binding.account, refresh_expires_at=binding.refresh_expires_at)
    key = CredentialKey(binding.server_name, owner)
    with tempfile.TemporaryDirectory() as home:
        FileStore(Path(home)).save_login(key, Credentials(tokens, client, server, binding))
        stored = FileStore(Path(home)).read(key)
        assert FileStore(Path(home)).list_keys() == [key]
    assert stored.client is not None
    assert stored.tokens is not None
    assert stored.authorization_server == server
    assert stored.binding == binding
    assert replace(stored.client, document={}) == replace(client, document={})
    # Without an expiry in the file, `obtained_at` is the file's modification time.
    unknown = tokens.expires_at is None
    assert replace(stored.tokens, obtained_at=NOW if unknown else stored.tokens.obtained_at) == tokens

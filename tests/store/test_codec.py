from __future__ import annotations

import json
import tempfile
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnwritable, clean_server_message
from hermes_mcp_auth_remote.login import Login, PromptReason
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client, client_from_document
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import DevicePollParameters, PollState
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, authorization_server_from_document
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store import MAX_FILE_BYTES
from hermes_mcp_auth_remote.store.codec import (
    binding_document,
    client_document,
    decode_document,
    encode_document,
    metadata_document,
    read_binding,
    read_client,
    read_metadata,
    read_tokens,
)
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials, UnansweredClient
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.login_codec import login_document, read_login, without_secrets
from hermes_mcp_auth_remote.values import BootTime, CredentialKey, Origin, Secret
from tests.requirements import covers
from tests.store.builders import NOW, REDIRECT_URI, build_authorization_server, build_login, keys_of

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
).map(
    # Without a secret, a method that needs one is read as `none` (quirk 50).
    lambda client: (
        client
        if client.client_secret or client.auth_method == "private_key_jwt"
        else replace(client, auth_method="none")
    )
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
    prompt_reason=st.sampled_from(get_args(PromptReason)),
    is_public_only=st.booleans(),
    deadline=st.none() | st.builds(BootTime, VISIBLE, TIMES),
    is_client_reused=st.booleans(),
    retried_errors=st.frozensets(VISIBLE, max_size=2),
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
    needed_scope=st.none() | st.frozensets(VISIBLE, max_size=3),
    is_public_only=st.booleans(),
    # The next test covers `replacement`: a client that was read has more members in its document.
    unanswered_client=st.none() | st.builds(UnansweredClient, client_id=VISIBLE),
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
    # If a field were added to a class but not to its codec, no other test would fail.
    field_counts = {
        Login: 22,
        AuthorizationRequest: 14,
        Client: 7,
        Binding: 15,
        UnansweredClient: 2,
        # `client_auth_method` of tokens and of a device authorization is stored with the client.
        Tokens: 9,
        Origin: 5,
        CredentialKey: 2,
    }
    field_counts |= {DeviceAuthorization: 7, DevicePollParameters: 7, PollState: 4}
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
    assert read_client(client_document(stored), "a path") == stored


@given(authorization_servers())
def test_metadata_are_encoded_and_decoded_unchanged(server: AuthorizationServer) -> None:
    assert (
        read_metadata(decode_document(encode_document(metadata_document(server)), "a path"), "a path")
        == server
    )


@covers("small-metadata")
def test_only_members_that_are_used_are_stored() -> None:
    used = build_authorization_server().document
    published = {
        **used,
        "scopes_supported": ["read", ["deep"], {"a": 1}, 7, "write"],
        "jwks_uri": "https://as0.example/keys",
        "ui_locales_supported": ["de"],
        "wide": {"a": 1},
    }
    assert metadata_document(authorization_server_from_document(published)) == used


BULKY_MEMBERS: dict[str, dict[str, Any]] = {
    "members": {f"member_{number:05d}_{'x' * 60}": number * 1_000_003 for number in range(9900)},
    "text": {"service_documentation": "x" * 60_000, "op_tos_uri": "y" * 60_000},
    "unused list": {"ui_locales_supported": [f"{number:070d}" for number in range(9900)]},
    "scopes": {"scopes_supported": [f"{number:070d}" for number in range(9900)]},
    "all lists": {
        name: [f"{number:060d}" for number in range(900)]
        for name in ("grant_types_supported", "response_types_supported", "scopes_supported")
    },
    "escapes": {"scopes_supported": ["\u00fc" * 60_000, "read"]},
}


@covers("small-metadata")
@pytest.mark.parametrize("bulk", BULKY_MEMBERS.values(), ids=BULKY_MEMBERS)
def test_metadata_are_stored_in_64_kib_and_read_back_unchanged(bulk: dict[str, object]) -> None:
    published = {**build_authorization_server().document, **bulk}
    server = authorization_server_from_document(json.loads(json.dumps(published)))
    stored = encode_document(metadata_document(server))
    assert len(stored) <= 65_536
    assert read_metadata(decode_document(stored, "a path"), "a path") == server
    assert server.code_challenge_methods_supported == ("S256",)


@covers("small-metadata")
def test_logins_of_one_server_share_its_metadata() -> None:
    stored = encode_document(login_document(build_login()))
    logins = [read_login(decode_document(stored, "a path"), "a path") for _ in range(3)]
    assert len({id(login.authorization_server) for login in logins}) == 1
    changed = {**build_authorization_server().document, "token_endpoint": "https://as0.example/other"}
    other = authorization_server_from_document(changed)
    assert other.token_endpoint == "https://as0.example/other"
    assert logins[0].authorization_server == build_authorization_server()


@covers("small-metadata")
def test_a_hundred_logins_with_bulky_metadata_use_little_memory() -> None:
    published = json.dumps({**build_authorization_server().document, **BULKY_MEMBERS["scopes"]})
    authorization_server_from_document(json.loads(published))
    tracemalloc.start()
    try:
        servers = [authorization_server_from_document(json.loads(published)) for _ in range(100)]
        memory = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(servers) == 100
    assert memory < 300_000


@covers("small-metadata")
def test_a_bulky_registration_is_stored_in_64_kib() -> None:
    document = {
        "client_id": "client-0",
        "client_secret": "s",
        "registration_access_token": "manage",
        "jwks": {"keys": [1] * 1000},
        "scope": "read",
        **BULKY_MEMBERS["members"],
        "contacts": [f"{number:070d}" for number in range(900)],
    }
    client = client_from_document(document)
    assert client.document.keys() == {"client_id", "client_secret", "registration_access_token", "scope"}
    uris = [f"https://a.example/{'x' * 9000}{number}" for number in range(90)]
    large_lists = {"grant_types": ["x" * 60_000] * 900, "redirect_uris": uris}
    client = client_from_document({"client_id": "client-0", **large_lists})
    assert len(json.dumps(client.document)) <= 65_536


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


def test_a_replacement_of_an_unanswered_client_is_read_again() -> None:
    client = Client("b", Secret("s"), "client_secret_post", (REDIRECT_URI,), is_registered=True)
    binding = Binding("n", "u", "i", "a", unanswered_client=UnansweredClient("a", client))
    read = read_binding(binding_document(binding, None), None, "x").unanswered_client
    assert read is not None
    assert read.replacement is not None
    assert replace(read.replacement, document={}) == client
    document = {**binding_document(binding, None), "unanswered_client": {"client_id": "a", "replacement": {}}}
    assert read_binding(document, None, "x").unanswered_client == UnansweredClient("a")
    assert read_binding({**document, "unanswered_client": 7}, None, "x").unanswered_client is None


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
        stored = FileStore(Path(home)).read(key).credentials
        assert keys_of(FileStore(Path(home))) == [key]
    assert stored.client is not None
    assert stored.tokens is not None
    assert stored.authorization_server == server
    assert stored.binding == binding
    assert replace(stored.client, document={}) == replace(client, document={})
    # Without an expiry in the file, `obtained_at` is the file's modification time.
    unknown = tokens.expires_at is None
    assert replace(stored.tokens, obtained_at=NOW if unknown else stored.tokens.obtained_at) == tokens

"""Sample credentials and logins; a generation number makes their values distinct."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, authorization_server_from_document
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.protocol import ANY, AnyValue, Store, Stored
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Owner, Secret

ROOT = Path(__file__).resolve().parents[2]

NOW = 1_800_000_000.0
KEY = CredentialKey("notes")
REDIRECT_URI = "http://127.0.0.1:8765/callback"
LOGIN_ID = "a-login-that-nobody-guesses"


FAILURE = RefreshFailure(
    first_at=NOW - 60,
    last_at=NOW - 60,
    failures=1,
    in_phase=0,
    was_alive=False,
    is_final=False,
    message="It could not be reached.",
    advice="Wait.",
    kind="unreachable",
)


def keys_of(store: Store, owner: Owner | AnyValue = ANY) -> list[CredentialKey]:
    """Return the keys of all stored tokens, or of those of one owner."""
    return [summary.key for summary in store.list_summaries(owner)]


def with_client_id(stored: Stored) -> Stored:
    """Return what is stored with the id of the client alone, which is all that a listing must have of it."""
    client = stored.credentials.client
    assert client is not None
    return stored._replace(credentials=replace(stored.credentials, client=Client(client.client_id)))


def build_authorization_server(generation: int = 0) -> AuthorizationServer:
    issuer = f"https://as{generation}.example"
    return authorization_server_from_document(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["read", "write"],
            "a_member_of_its_own": [True, None, 1],
        }
    )


def build_credentials(generation: int = 0, key: CredentialKey = KEY) -> Credentials:
    server = build_authorization_server(generation)
    return Credentials(
        Tokens(
            access_token=Secret(f"access-{generation}"),
            refresh_token=Secret(f"refresh-{generation}"),
            scope=frozenset({"read", "write"}),
            expires_at=NOW + 3600,
            refresh_expires_at=NOW + 86_400,
            obtained_at=NOW,
            account="ada@example.com",
        ),
        Client(
            f"client-{generation}",
            Secret(f"client-secret-{generation}"),
            "client_secret_post",
            (REDIRECT_URI,),
            is_registered=True,
        ),
        server,
        Binding(
            server_name=key.server_name,
            server_url="https://notes.example/mcp",
            issuer=server.issuer,
            client_id=f"client-{generation}",
            resource="https://notes.example/mcp",
            requested_scope=frozenset({"read", "write", "admin"}),
            account="ada@example.com",
            connected_at=NOW,
            refresh_expires_at=NOW + 86_400,
        ),
    )


def build_login(login_id: str = LOGIN_ID) -> Login:
    server = build_authorization_server()
    client = Client(
        "client-0",
        Secret("client-secret-0"),
        "client_secret_post",
        (REDIRECT_URI,),
        is_registered=True,
        document={"client_secret": "client-secret-0", "registration_access_token": "manage-0"},
    )
    request = AuthorizationRequest(
        url=f"{server.authorization_endpoint}?state=state-0",
        state=Secret("state-0"),
        code_verifier=Secret("verifier-0"),
        redirect_uri=REDIRECT_URI,
        client=client,
        issuer=server.issuer,
        is_iss_required=True,
        token_endpoint=server.token_endpoint,
        authorization_endpoint=server.authorization_endpoint,
        resource=None,
        scope=frozenset({"read"}),
    )
    return Login(
        id=login_id,
        key=CredentialKey("notes", "telegram:42"),
        server_url="https://notes.example/mcp",
        request=request,
        authorization_server=server,
        origin=Origin("telegram", "7", "", "42"),
        started_at=NOW,
        expires_at=NOW + 600,
    )

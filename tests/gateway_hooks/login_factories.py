"""Factories of logins and connections, and Hypothesis strategies for both."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import start_polling
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret
from tests.oauth.builders import ISSUER, NOW, client, request, server

ADA = Origin("parlour", chat_id="private-ada", user_id="ada", bot_id="900")
BOB = Origin("parlour", chat_id="private-bob", user_id="bob", bot_id="900")
GROUP = Origin("parlour", chat_id="kitchen", user_id="ada", bot_id="900")
USER_CODE = "WDJB-MJHT"


def make_login(origin: Origin = ADA, login_id: str = "login-1", **fields: object) -> Login:
    """Make a login that waits for a pasted answer."""
    login = Login(
        id=login_id,
        key=CredentialKey("notes"),
        server_url="https://mcp.example/mcp",
        request=request(scope=frozenset({"read"})),
        authorization_server=server(),
        origin=origin,
        started_at=NOW,
        expires_at=NOW + 600,
    )
    return replace(login, **fields)  # type: ignore[arg-type]


def with_device_code(login: Login, user_code: str = USER_CODE, complete_uri: str | None = None) -> Login:
    """Return the login with a device code that the user enters elsewhere."""
    device_authorization = DeviceAuthorization(Secret("d3vice"), user_code, f"{ISSUER}/device", complete_uri)
    return replace(login, poll_state=start_polling(server(), client(), device_authorization, NOW))


def make_connection(**fields: object) -> Connection:
    connection = Connection(
        key=CredentialKey("notes"),
        server_url="https://mcp.example/mcp",
        issuer=ISSUER,
        account="ada@example.com",
        scope=frozenset({"read"}),
        expires_at=NOW + 3600,
        can_refresh=True,
    )
    return replace(connection, **fields)  # type: ignore[arg-type]


# Names from a hostile server or a careless operator.
TEXTS = st.text(min_size=1, max_size=20) | st.builds(
    str.__mul__, st.text(min_size=1, max_size=3), st.just(3000)
)
SCOPES = st.none() | st.frozensets(TEXTS, max_size=3)
TIMESTAMPS = st.floats(NOW - 10**7, NOW + 10**7) | st.sampled_from([-1e300, 1e300])


@st.composite
def logins(draw: st.DrawFn) -> Login:
    """Draw any login: with a long, empty or hostile name, any scope, any host, a paste or a device code."""
    hosts = st.text("aé0-.", min_size=1, max_size=10) | st.just("long." * 300)
    authorization_request = replace(
        request(),
        scope=draw(SCOPES),
        authorization_endpoint=f"https://{draw(hosts)}/authorize",
        token_endpoint=f"https://{draw(hosts)}/token",
        redirect_uri=draw(st.sampled_from(["http://127.0.0.1:1/callback", "https://hosted.example/cb"])),
    )
    login = make_login(
        key=CredentialKey(draw(TEXTS), draw(st.sampled_from([None, "parlour:ada"]))),
        server_url=f"https://mcp.example/{draw(TEXTS)}",
        request=authorization_request,
        added_scope=draw(SCOPES) or frozenset(),
        status=draw(st.sampled_from(["waiting", "exchanging", "done", "failed", "expired", "cancelled"])),
        failure=draw(st.none() | st.tuples(TEXTS, TEXTS)),
        started_at=draw(TIMESTAMPS),
        expires_at=draw(TIMESTAMPS),
    )
    codes = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64)
    return with_device_code(login, draw(codes)) if draw(st.booleans()) else login


@st.composite
def connections(draw: st.DrawFn) -> Connection:
    """Draw any connection."""
    return make_connection(
        key=CredentialKey(draw(TEXTS), draw(st.sampled_from([None, "parlour:ada"]))),
        account=draw(st.none() | TEXTS),
        scope=draw(SCOPES),
        missing_scope=draw(SCOPES) or frozenset(),
        expires_at=draw(st.none() | TIMESTAMPS),
        refresh_expires_at=draw(st.none() | TIMESTAMPS),
        login_needed=draw(st.none() | TEXTS),
        can_refresh=draw(st.booleans()),
    )

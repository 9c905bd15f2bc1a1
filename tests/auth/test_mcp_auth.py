"""One McpAuth for the clients of httpx and httpx2. Frameworks may copy it, pickle it or call `headers`."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from typing import Any

import httpx
import httpx2
import pytest

from hermes_mcp_auth_remote import McpAuth
from hermes_mcp_auth_remote.auth import httpx as httpx_binding
from hermes_mcp_auth_remote.auth import httpx2 as httpx2_binding
from hermes_mcp_auth_remote.config import server_from_url
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.service.default import default_service
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import log_in
from tests.store.builders import ROOT

OWNER = "telegram:42"


@pytest.fixture
def url(demo: Demo) -> str:
    """The URL of a server at which the operator has logged in, in the default HERMES_HOME."""
    asyncio.run(log_in(default_service(), server_from_url(demo.ping_url)))
    return demo.ping_url


async def fetch_status(library: Any, auth: object, url: str) -> int:
    async with library.AsyncClient(auth=auth, timeout=20) as client:
        status: int = (await client.get(url)).status_code
        return status


@covers("one-mcp-auth")
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_one_object_serves_the_clients_of_both_libraries(library: Any, url: str) -> None:
    auth = McpAuth(url)
    assert isinstance(auth, library.Auth)
    assert asyncio.run(fetch_status(library, auth, url)) == 200
    with library.Client(auth=auth, timeout=20) as client:
        assert client.get(url).status_code == 200


PROGRAM = """
import sys
for name in sys.argv[1:]: sys.modules[name] = None
try:
    from hermes_mcp_auth_remote import McpAuth
except ImportError as error:
    print(error)
else:
    print(sorted(base.__module__.partition(".")[0] for base in McpAuth.__mro__ if base.__name__ == "Auth"))
"""


@covers("one-mcp-auth")
@pytest.mark.parametrize(
    ("missing", "output"),
    [
        ([], "['httpx', 'httpx2']"),
        (["httpx"], "['httpx2']"),
        (["httpx2"], "['httpx']"),
        (["httpx", "httpx2"], "neither is installed. Install the one that your HTTP client uses"),
    ],
    ids=["both", "no httpx", "no httpx2", "neither"],
)
def test_neither_library_is_required(missing: list[str], output: str) -> None:
    command = [sys.executable, "-c", PROGRAM, *missing]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    assert output in completed.stdout


@covers("one-mcp-auth")
@pytest.mark.parametrize(
    "auth_class", [McpAuth, httpx_binding.McpAuth, httpx2_binding.McpAuth], ids=["any", "httpx", "httpx2"]
)
@pytest.mark.parametrize(
    "copy_object", [copy.deepcopy, copy.copy, lambda auth: pickle.loads(pickle.dumps(auth))]
)
def test_a_copy_uses_the_same_session(auth_class: Any, copy_object: Any, url: str) -> None:
    auth = auth_class(url, owner=None)
    copied = copy_object({"transport": {"auth": auth}} if copy_object is copy.deepcopy else auth)
    copied = copied["transport"]["auth"] if isinstance(copied, dict) else copied
    assert type(copied) is auth_class
    assert copied.headers() == auth.headers() != {}


@covers("one-mcp-auth")
@pytest.mark.parametrize("copy_object", [copy.deepcopy, pickle.dumps])
def test_an_object_of_a_session_says_how_to_make_one_that_can_be_copied(copy_object: Any, url: str) -> None:
    auth = McpAuth(default_service().session(server_from_url(url)))
    with pytest.raises(
        TypeError, match=r"cannot be copied or pickled\. Make it from the server's name or URL"
    ):
        copy_object(auth)


@covers("one-mcp-auth")
def test_headers_are_those_of_a_request(url: str, demo: Demo) -> None:
    auth = McpAuth(url)
    headers = auth.headers()
    assert headers == asyncio.run(auth.async_headers())
    assert httpx.get(url, headers=headers).status_code == 200
    # A header is never in a repr: frameworks log their settings.
    assert headers["Authorization"].partition(" ")[2] not in repr(auth)


@covers("one-mcp-auth")
def test_an_owner_uses_the_tokens_of_that_owner_alone(url: str) -> None:
    with pytest.raises(AuthorizationRequired):
        McpAuth(url, owner=OWNER).headers()
    asyncio.run(log_in(default_service(), server_from_url(url), owner=OWNER))
    auth = McpAuth(url, owner=OWNER)
    assert auth.headers() != McpAuth(url).headers()
    assert copy.deepcopy(auth).headers() == auth.headers()
    with pytest.raises(TypeError, match="already has an owner"):
        McpAuth(default_service().session(server_from_url(url)), owner=OWNER)


@covers("one-mcp-auth")
def test_headers_of_a_bound_token_are_refused(url: str) -> None:
    session = default_service().session(server_from_url(url))
    auth = McpAuth(session)
    auth.headers()
    session.prover = Prover(None, lambda: 0.0, lambda _: "")  # type: ignore[arg-type]
    for read_headers in (auth.headers, lambda: asyncio.run(auth.async_headers())):
        with pytest.raises(TypeError, match="bound to a key"):
            read_headers()

"""Fuzz config.yaml and .env: each input gives valid servers or an McpAuthError.

One input contains both files, with a line `#env` between them.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

from fuzz.inputs import check
from hermes_mcp_auth_remote.config import find_server, load_servers
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.urls import is_safe_url

SEEDS = (
    (
        b"mcp_servers:\n  demo:\n    url: https://a.example/mcp\n    auth: oauth\n"
        b"    oauth:\n      scope: [a, b]\n"
        b"      client_secret: ${SECRET}\n      redirect_port: 1\n      trusted_issuers: https://b.example\n"
        b"#env\nexport SECRET='x' # y\n"
    ),
    (
        b'{"mcp_servers": {"demo": {"url": "https://${HOST}/", "ssl_verify": false,'
        b' "client_cert": ["a", "b"],'
        b' "oauth": {"grant": "jwt_bearer", "client_id": "a", "assertion_file": "~/x"}}}}'
        b'\n#env\nHOST="a\\n.b"\n'
    ),
    (
        b"mcp_servers: &a\n"
        b"  demo: {url: https://a.example, oauth: {allow_addresses: [10.0.0.0/8], timeout: 1e9}}\n"
        b"  other: {<<: *a, command: npx}\n"
    ),
)
_HOME = tempfile.TemporaryDirectory(prefix="hermes-fuzz-")


def fuzz_one_input(data: bytes) -> None:
    """Read all configured servers, and one by its name."""
    config, _, env = data.partition(b"#env\n")
    home = Path(_HOME.name)
    (home / "config.yaml").write_bytes(config)
    (home / ".env").write_bytes(env)
    with suppress(McpAuthError):
        for server in load_servers(home, {}).values():
            check(is_safe_url(server.url), "an unsafe URL")
    with suppress(McpAuthError):
        check(is_safe_url(find_server("demo", home, {}).url), "an unsafe URL")

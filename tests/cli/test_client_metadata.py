"""A server that takes only client ID metadata documents, with and without the document of docs/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "docs" / "client-metadata"
DOCUMENT = json.loads((FOLDER / "client.json").read_text("utf-8"))


@covers("cimd-only")
@pytest.mark.parametrize("accepts_any_port", [True, False])
def test_a_login_with_the_documented_document(cli: Cli, demo: Demo, accepts_any_port: bool) -> None:  # noqa: FBT001
    demo.authorization_server.change_behaviour(
        with_registration=False, cimd_supported=True, allows_any_loopback_port=accepts_any_port
    )
    demo.authorization_server.client_documents[DOCUMENT["client_id"]] = DOCUMENT
    port: dict[str, Any] = {} if accepts_any_port else {"redirect_port": 8765}
    cli.configure(demo.mcp_url, client_metadata_url=DOCUMENT["client_id"], **port)
    log_in(cli, demo)
    demo.authorization_server.ledger.revoke_access_tokens()
    cli.change_stored_tokens(expires_at=1)
    assert cli.run("token", "demo", may_show=demo.authorization_server.minted_secrets).exit_code == 0
    assert demo.authorization_server.count_requests("registration") == 0
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("cimd-only")
@pytest.mark.parametrize("verb", ["login", "doctor"])
def test_without_a_document_the_error_names_the_setting_and_the_page(cli: Cli, demo: Demo, verb: str) -> None:
    demo.authorization_server.change_behaviour(with_registration=False, cimd_supported=True)
    result = cli.run(verb, "demo")
    text = " ".join((result.out + result.err).split())
    assert result.exit_code != 0
    assert "takes clients with a metadata document, and none is configured." in text
    assert "`oauth.client_metadata_url`" in text
    assert "docs/client-metadata/README.md" in text
    assert (FOLDER / "README.md").is_file()


def test_the_document_has_no_secret_and_names_no_real_host() -> None:
    assert "client_secret" not in DOCUMENT
    assert DOCUMENT["client_id"].startswith("https://mcp.example.com/")

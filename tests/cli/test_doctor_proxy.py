"""`doctor` behind a proxy, if the metadata names a host whose addresses this machine cannot check."""

from __future__ import annotations

import pytest

from tests.cli.commands import Cli
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

HOST = "vault.corp.invalid"
PROXY = {"HTTPS_PROXY": "http://127.0.0.1:9"}


@covers("unchecked-host", "doctor")
def test_an_unchecked_host_is_named_with_the_option_that_allows_it(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        resource_overrides={"authorization_servers": [f"https://{HOST}"]}
    )
    result = cli.run("doctor", "demo", "--json", env=PROXY)
    [event] = result.events
    [problem] = event["problems"]
    assert (result.exit_code, problem["error"]) == (7, "host_not_checked")
    assert HOST in problem["message"]
    assert problem["advice"] == (
        f"If you trust that host, add {HOST} to `oauth.allow_hosts` of this server in config.yaml."
    )
    # The command sent nothing to the proxy, and the last step shows that.
    last_step = event["steps"][-1]
    assert (last_step["error"], last_step["proxy"]) == ("host_not_checked", None)
    text = cli.run("doctor", "demo", env=PROXY)
    assert "by the proxy" not in text.out
    assert f"add {HOST} to `oauth.allow_hosts`" in " ".join(text.out.split())


@covers("unchecked-host", "doctor")
def test_the_advice_works_as_printed(cli: Cli, demo: Demo) -> None:
    """After the advice, the command uses the proxy. The proxy is down, so the command reports that."""
    demo.authorization_server.change_behaviour(
        resource_overrides={"authorization_servers": [f"https://{HOST}"]}
    )
    cli.configure(demo.mcp_url, allow_hosts=[HOST])
    report = cli.run("doctor", "demo", "--json", env=PROXY).events[0]
    assert report["problems"][0]["error"] == "unreachable"
    assert report["steps"][-1]["proxy"] == "127.0.0.1:9"
    assert f"{HOST} (unchecked behind a proxy)" in report["network"]["reaches"]
    assert "oauth.allow_hosts" in report["configured"]


@covers("unchecked-host")
def test_a_login_prints_the_same_advice_and_exits_with_7(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        resource_overrides={"authorization_servers": [f"https://{HOST}"]}
    )
    result = cli.run("login", "demo", "--json", env=PROXY)
    assert (result.exit_code, result.events[0]["error"]) == (7, "host_not_checked")
    text = " ".join(cli.run("login", "demo", env=PROXY).err.split())
    assert text.startswith(f"✗ The addresses of {HOST} cannot be checked: ")
    assert f"add {HOST} to `oauth.allow_hosts` of this server in config.yaml." in text

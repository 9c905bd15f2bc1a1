"""docs/hermes.md, followed literally in an installation of Hermes without the plugin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import leak_check
from tests.consent_form import approve
from tests.hermes.scenario import SECONDS, add_started_user
from tests.parts import bot_api
from tests.parts.authorization_server import serve_demo
from tests.parts.fake_model import ToolCall, serve_fake_model
from tests.parts.hermes_gateway import ROOT, run_gateway
from tests.parts.hermes_installation import HermesInstallation, install_hermes, make_wheelhouse
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-docs")]

PAGE = (ROOT / "docs" / "hermes.md").read_text("utf-8")
IMPORT = 'python -c "import hermes_mcp_auth_remote"'
USER_ID = 42
# Hermes 0.19 asks if the plugin may replace tools; the page says: answer no.
ANSWERS = "n\n"


@dataclass(frozen=True)
class InstallMethod:
    """How to install the plugin: the heading of its commands, what they contain, the layout of Hermes."""

    heading: str
    contains: str
    layout: str


METHODS = {
    "pip, 0.19": InstallMethod("Two minutes", "pip install", "0.19"),
    "pip of the installer's environment, 0.21": InstallMethod(
        "installed by its own installer", "-m pip install '.", "0.21"
    ),
    "directory, 0.19": InstallMethod("installed by its own installer", "--target", "0.19"),
    "directory, 0.21": InstallMethod("installed by its own installer", "--target", "0.21"),
}


def code_blocks(heading: str, language: str) -> list[str]:
    """Return the blocks of code in the section of the page whose heading contains a text."""
    section = next(
        part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE) if heading in part.partition("\n")[0]
    )
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", section, re.MULTILINE | re.DOTALL)
    return [
        re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)
        for indent, name, block in blocks
        if name == language
    ]


def documented_servers(url: str) -> dict[str, Any]:
    """Return the page's own settings, for another address."""
    [block] = code_blocks("Two minutes", "yaml")
    servers: dict[str, Any] = yaml.safe_load(block)["mcp_servers"]
    [entry] = servers.values()
    entry["url"] = url
    return servers


def log_in_from_a_chat(installation: HermesInstallation, layout: str) -> None:
    """Run the gateway of an installation with the page's settings and send the page's command."""
    enabled = yaml.safe_load((installation.home / ".hermes" / "config.yaml").read_text())
    [command] = [
        line for line in code_blocks("Two minutes", "")[-1].splitlines() if line.startswith("/mcpauth")
    ]
    with (
        serve_demo() as demo,
        bot_api.serve_bot_api() as api,
        serve_fake_model() as model,
    ):
        leak_check.watch_secrets([api.token])
        leak_check.watch_secrets(demo.authorization_server.minted_secrets)
        anna = add_started_user(api, USER_ID, "Anna")
        servers = documented_servers(demo.mcp_url)
        [name] = servers
        with run_gateway(
            installation.home / ".hermes",
            command=(str(installation.venv / "bin" / "hermes"),),
            telegram=api,
            model=model,
            mcp_servers=servers,
            allowed=[USER_ID],
            settings=enabled,
            layout=layout,
        ) as hermes:

            def wait_for(text: str) -> bot_api.Message:
                return api.wait(
                    lambda: [it for it in api.messages(anna) if it.is_from_bot and text in it.text], SECONDS
                )[-1]

            api.say(anna, command)
            prompt = wait_for(f"Connect {name}")
            api.say(anna, approve(api.button_url(prompt, "Open the page")))
            wait_for(f"{name}: connected")
            api.wait(lambda: f"The tools of {name} are loaded." in hermes.output(), SECONDS)
            model.queue_steps(ToolCall(f"mcp__{name}__whoami"), "You are Ada there.")
            api.say(anna, "Who am I?")
            wait_for("You are Ada there.")
            assert "all its parts were found." in hermes.output()
            if layout == "0.19":
                doctor = installation.run("hermes mcpauth doctor")
                assert (doctor.returncode, "Nothing is wrong." in doctor.stdout) == (0, True), doctor.stdout


# Each test installs a Hermes and runs its gateway.
@pytest.mark.soak
@covers("hermes-docs", "hermes-layouts")
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, id=name, marks=[pytest.mark.real_hermes] if method.layout == "0.19" else [])
        for name, method in METHODS.items()
    ],
)
def test_the_commands_of_the_page_install_the_plugin(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, method: InstallMethod
) -> None:
    wheelhouse = make_wheelhouse(
        tmp_path_factory.getbasetemp() / f"wheelhouse-{method.layout}", method.layout
    )
    installation = install_hermes(tmp_path, method.layout, wheelhouse)
    assert installation.run(IMPORT).returncode != 0, "the installation must not have the package yet"
    [commands] = [block for block in code_blocks(method.heading, "sh") if method.contains in block]
    installed = installation.run(commands, ANSWERS, ROOT)
    assert installed.returncode == 0, installed.stderr + installed.stdout
    log_in_from_a_chat(installation, method.layout)
    if method.contains == "--target":
        # An update that replaces Hermes's environment leaves the folder alone.
        assert installation.run(IMPORT).returncode != 0
    else:
        [removal] = code_blocks("Removing it", "sh")
        removed = installation.run(removal, "y\n")
        assert removed.returncode == 0, removed.stderr + removed.stdout
        assert installation.run(IMPORT).returncode != 0
    settings = yaml.safe_load((installation.home / ".hermes" / "config.yaml").read_text())
    is_enabled = "mcp-auth-remote" in settings["plugins"]["enabled"]
    assert is_enabled is (method.contains == "--target")
    [tokens] = (installation.home / ".hermes" / "mcp-tokens").glob("linear.json")
    assert tokens.stat().st_size > 0

"""The README and the documentation match the program."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from hermes_mcp_auth_remote.cli.connection_status import UNREADABLE
from hermes_mcp_auth_remote.cli.extras import install_extras_command
from hermes_mcp_auth_remote.cli.output import EXIT_CODES, LOGIN_NEEDED_EXIT_CODE
from hermes_mcp_auth_remote.cli.status_table import TABLE_HEADER
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.phrases import NOT_CONNECTED
from hermes_mcp_auth_remote.status import ConnectionState
from tests.consent_form import approve
from tests.leak_check import watch_secrets
from tests.parts.authorization_server import Demo, serve_demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
)


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", code_blocks("python"))
def test_every_python_example_compiles_and_its_imports_exist(code: str) -> None:
    compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    lines = [line for line in code.splitlines() if re.match(r"(from|import) ", line)]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.fixture
def demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        watch_secrets(demo.authorization_server.minted_secrets)
        yield demo


@covers("readme-runs")
def test_the_python_examples_of_the_readme_run(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("HOME", tmp_path), ("HERMES_HOME", tmp_path / ".hermes")):
        monkeypatch.setenv(variable, str(value))
    names: dict[str, object] = {
        "url": demo.mcp_url,
        "send_privately": lambda address: names.update(pasted_text=approve(address)),
        "client_metadata": OAuthClientMetadata(redirect_uris=[AnyUrl("http://127.0.0.1:1/callback")]),
        "redirect_handler": None,
        "callback_handler": None,
    }
    # The login comes first: the other examples use its tokens.
    for example in sorted(code_blocks("python"), key=lambda code: "start_login" not in code):
        code = example.replace("https://mcp.linear.app/mcp", demo.mcp_url).replace("{...}", "{}")
        result = eval(compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if result is not None:
            asyncio.run(result)
    connection, response = names["connection"], names["response"]
    assert isinstance(connection, Connection)
    assert isinstance(response, httpx.Response)
    # 400: the body is no MCP request. The server has accepted the token.
    assert response.status_code == 400
    assert isinstance(names["provider"], OAuthClientProvider)


@covers("readme-runs")
def test_the_readme_says_what_each_python_example_needs() -> None:
    for code in code_blocks("python"):
        text_before = README.partition(code)[0].rpartition("```")[0].rpartition("\n## ")[2]
        if "import httpx\n" in code:
            assert "uses httpx, which the installation above includes" in text_before
        if "from mcp" in code:
            assert "pip install 'mcp>=2.0'" in text_before


def test_the_readme_names_exactly_the_commands_of_the_program() -> None:
    documented = set(re.findall(r"hermes-mcp-auth (\w+)", README))
    help_text = subprocess.run(
        [sys.executable, "-m", "hermes_mcp_auth_remote.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    commands = set(re.findall(r"^    (\w+) ", help_text, re.MULTILINE))
    assert documented <= commands
    assert commands <= documented


def test_the_readme_names_every_exit_code() -> None:
    sentence = README[README.index("Exit codes:") :].partition("\n\n")[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", sentence)} >= set(EXIT_CODES.values())


@covers("exit-codes", "status-check")
def test_the_page_of_the_command_line_has_every_exit_code() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    table = page.partition("## Exit codes")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", table, re.MULTILINE)
    meanings = {int(code): meaning for codes, meaning in cells for code in codes.split(",")}
    assert set(meanings) >= {0, 1, 2, 126, 127, 130, 141, 143, *EXIT_CODES.values()}
    assert "status --check" in meanings[LOGIN_NEEDED_EXIT_CODE]


@covers("status-next")
def test_the_page_of_the_command_line_defines_every_column_and_state() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    defined = {row.partition(" | ")[0].removeprefix("| ") for row in page.splitlines()}
    assert {*TABLE_HEADER, *get_args(ConnectionState), NOT_CONNECTED, UNREADABLE} <= defined


def test_every_make_command_in_the_readme_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(code_blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_has_a_target(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_the_picture_shows_the_current_screen() -> None:
    script = "import picture, sys; sys.stdout.write(picture.draw(picture.render_screen()))"
    svg = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "docs", capture_output=True, check=True
    ).stdout.decode()
    assert svg == (ROOT / "docs" / "login.svg").read_text("utf-8"), "Run: python docs/picture.py"


@pytest.mark.parametrize("name", ["telegram.svg", "discord.svg", "hermes.svg"])
def test_the_pictures_of_chats_match_the_transcripts(name: str) -> None:
    script = f"import chat_picture as it, sys; sys.stdout.write(it.draw(it.PICTURES[{name!r}]))"
    svg = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "docs", capture_output=True, check=True
    ).stdout.decode()
    assert svg == (ROOT / "docs" / name).read_text("utf-8"), "Run: python docs/chat_picture.py"


def test_every_key_of_the_configuration_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    source = (ROOT / "hermes_mcp_auth_remote" / "config" / "server_entry.py").read_text("utf-8")
    keys = set(re.findall(r'(?:oauth|entry|at)(?:\.members)?\.\w+\("(\w+)"', source))
    keys |= set(re.findall(r'\.get\("(\w+)"', source))
    assert keys
    assert {key for key in keys if f"`{key}" not in page} == set()


def test_the_configuration_page_names_exactly_the_variables_that_are_read() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    section = page.partition("## The network")[2].partition("\n## ")[0]
    used, _, unused = section.partition("`HTTP_PROXY` is never read")
    assert unused
    folder = ROOT / "hermes_mcp_auth_remote" / "http"
    source = "".join((folder / name).read_text("utf-8") for name in ("proxies.py", "tls.py"))
    read = re.findall(r'(?:_variable|environ\.get)\("(\w+)"', source)
    assert {name.upper() for name in read} == set(re.findall(r"`([A-Z_]+)`", used))


def test_mypy_checks_every_folder_with_python_files() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    folders = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]["files"]
    # The examples are not a package: mypy checks them in a separate run.
    assert folders - {"docs", "examples"} == set(checked)


def test_no_file_contains_a_local_path_or_a_registry_url() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    suspicious = re.compile(
        r"(?<![\w.])/(?:root|work|home/\w+|Users/\w+)/|files\.pythonhosted|registry\.npmjs|\.whl\b"
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".lock", ".json", ".mjs", ".in"}
            and name != "tests/test_readme.py"
        ):
            assert not suspicious.search(path.read_text("utf-8")), name


INSTALLERS = re.compile(
    r"\b(?:pip3? install|pipx (?:run|install)|uvx|uv tool (?:run|install)|uv pip install|npx)\b([^`\n]*)"
)
OWN_PACKAGE = re.compile(r"hermes[-_]mcp[-_]auth", re.IGNORECASE)
# A path is a clone: `.`, `./somewhere`, or what follows --from or --spec with such a path.
CLONE = re.compile(r"--(?:from|spec)[ =]'?\.")
PATH_ARGUMENT = re.compile(r"(?:(?<=\s)|(?<=')|(?<=\"))[.~/{][^\s'\"]*")


def installs_from_an_index(command_arguments: str) -> bool:
    """Return whether the arguments of an installer name this package, and no clone of it."""
    command_arguments = command_arguments.partition("#")[0]
    if CLONE.search(command_arguments):
        return False
    return OWN_PACKAGE.search(PATH_ARGUMENT.sub("", command_arguments)) is not None


@covers("from-clone")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pip install 'hermes-mcp-auth-remote[httpx]'", True),
        ("pip install --target /x/lib hermes_mcp_auth_remote", True),
        ("uvx hermes-mcp-auth-remote status", True),
        ("uv tool run hermes-mcp-auth status", True),
        ("pipx run hermes-mcp-auth-remote", True),
        ("npx -y hermes-mcp-auth", True),
        ("pip install '.[httpx]'   # hermes-mcp-auth", False),
        ("pip install './hermes_mcp_auth_remote[httpx]'", False),
        ("uvx --from . hermes-mcp-auth-remote status", False),
        ("uvx --from './hermes_mcp_auth_remote[httpx]' hermes-mcp-auth-remote status", False),
        ("pipx run --spec . hermes-mcp-auth-remote status", False),
        ("pip install 'python-telegram-bot[webhooks]>=22.6'", False),
        ("pip uninstall hermes-mcp-auth-remote", False),
    ],
)
def test_the_search_finds_commands_that_install_from_an_index(command: str, *, expected: bool) -> None:
    found = [match[1] for match in INSTALLERS.finditer(command)]
    assert any(map(installs_from_an_index, found)) is expected


@covers("from-clone")
def test_no_command_installs_this_package_from_an_index() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.py", "*.yaml", "*.json", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [name for name in listed.stdout.splitlines() if not name.startswith("tests/")]
    commands = [
        f"{name}: {match[0]}"
        for name in files
        for match in INSTALLERS.finditer((ROOT / name).read_text("utf-8"))
        if installs_from_an_index(match[1])
    ]
    assert commands == []


@covers("from-clone")
@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_the_advice_for_a_missing_library_names_the_packages_of_the_extra(extra: str) -> None:
    command = install_extras_command(extra)
    assert re.search(r"pip install \S+.*", command)
    assert not OWN_PACKAGE.search(command)


@covers("package-script")
def test_a_script_has_the_name_of_the_package() -> None:
    assert PROJECT["scripts"][PROJECT["name"]] == PROJECT["scripts"]["hermes-mcp-auth"]

"""Which tests are left out if a program is missing, and where the Makefile installs Hermes Agent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

ROOT = Path(__file__).parents[2]
STAMP = ".venvs/hermes/.stamp"
# Commands in place of a Python. `-c` checks the version. All other arguments are written to a file.
SUITABLE_PYTHON = """\
#!/bin/sh
test "$1" = -c && exit 0
echo "$0 $*" >> commands.txt
mkdir -p .venvs/hermes/bin
echo '#!/bin/sh' > .venvs/hermes/bin/pip
chmod +x .venvs/hermes/bin/pip
"""
UNSUITABLE_PYTHON = """\
#!/bin/sh
test "$1" = -c && exit 1
echo "$0 $*" >> commands.txt
"""


@pytest.mark.parametrize(
    ("version", "stamp", "ci", "missing"),
    [
        ((3, 14, 0), "no-such-file", "", {"real_hermes"}),
        ((3, 14, 0), "Makefile", "", set()),
        # The tests of Hermes fail, and name the command that installs it.
        ((3, 14, 0), "no-such-file", "true", set()),
        ((3, 13, 0), "no-such-file", "", set()),
    ],
)
def test_hermes_may_be_missing_only_on_a_python_that_it_does_not_run_on(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], stamp: str, ci: str, missing: set[str]
) -> None:
    monkeypatch.setattr(conftest, "HERMES_STAMP", ROOT / stamp)
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setenv("CI", ci)
    assert conftest.missing_programs().keys() & {"real_hermes"} == missing


@pytest.fixture
def make_folder(tmp_path: Path) -> Path:
    """Return a folder with the Makefile and what the environment of Hermes depends on."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tests" / "hermes").mkdir(parents=True)
    for name in ("tests/hermes/requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    for name, script in {"python3.14": UNSUITABLE_PYTHON, "python3.13": SUITABLE_PYTHON}.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def make_hermes(folder: Path, commands: str) -> str:
    process = subprocess.run(
        ["make", "-s", STAMP, f"HERMES_PYTHON={commands}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout


def test_hermes_is_installed_with_the_first_python_that_it_runs_on(make_folder: Path) -> None:
    make_hermes(make_folder, "./python3.14 ./no-such-command ./python3.13 ./python3.14")
    assert (make_folder / "commands.txt").read_text() == "./python3.13 -m venv .venvs/hermes\n"
    assert (make_folder / STAMP).exists()


def test_without_such_a_python_make_says_which_are_needed(make_folder: Path) -> None:
    output = make_hermes(make_folder, "./python3.14 ./no-such-command")
    assert output == (
        "Hermes Agent 0.19 needs Python 3.11 to 3.13. None of these is one: ./python3.14 ./no-such-command.\n"
    )
    assert not (make_folder / "commands.txt").exists()
    assert not (make_folder / STAMP).exists()

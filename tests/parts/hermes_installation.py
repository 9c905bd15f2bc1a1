"""An installation of Hermes without the plugin, for tests that follow the commands of docs/hermes.md.

The installation is where Hermes's own installer puts it: ~/.hermes/hermes-agent/venv, below the HOME of the
test. Its packages are links to those of an environment of the tests, without this package. pip needs no
index: `make_wheelhouse` packs the installed dependencies as wheels again.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.parts.hermes_gateway import PYTHON, ROOT
from tests.parts.requirements import MissingDependency

OWN_NAME = "hermes-mcp-auth-remote"
EXTRAS = ("", "hermes")
BUILD_BACKEND = "hatchling"
WHEEL_SUFFIX = "whl"
# The program `hermes` by layout. `{folder!r}` has a link to the folder of the tests, and no package of ours.
STARTERS = {
    "0.19": "import sys\nfrom hermes_cli.main import main\nsys.exit(main())\n",
    "0.21": (
        "import sys\nsys.path[0] = {folder!r}\n"
        "from tests.parts.hermes_stand_in.__main__ import main\nmain()\n"
    ),
}


@dataclass(frozen=True, slots=True)
class HermesInstallation:
    """An installation in a HOME. `wheelhouse` is where its pip finds packages."""

    home: Path
    wheelhouse: Path

    @property
    def venv(self) -> Path:
        return self.home / ".hermes" / "hermes-agent" / "venv"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a user's shell in which `hermes` and `pip` are those of the installation."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.venv / 'bin'}:/usr/bin:/bin",
            "NO_COLOR": "1",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheelhouse),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    def run(
        self, script: str, answers: str = "", folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run commands as a user types them, in a folder (None: the HOME). `answers` are typed afterwards."""
        return subprocess.run(
            ["sh", "-euc", script],
            cwd=folder or self.home,
            env=self.environment,
            input=answers,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def install_hermes(home: Path, layout: str, wheelhouse: Path) -> HermesInstallation:
    """Make an installation of this layout (0.19: the real Hermes, 0.21: the stand-in) in a HOME."""
    installation = HermesInstallation(home, wheelhouse)
    source = environment_of(layout)
    base_python = _run(str(source), "-c", "import sys; print(sys._base_executable)")
    _run(base_python, "-m", "venv", "--without-pip", str(installation.venv))
    site_packages = _site_packages(installation.venv / "bin" / "python")
    for entry in _site_packages(source).iterdir():
        if OWN_NAME.replace("-", "_") not in entry.name:
            (site_packages / entry.name).symlink_to(entry)
    tests_folder = installation.venv.parent / "stand-in"
    tests_folder.mkdir()
    (tests_folder / "tests").symlink_to(ROOT / "tests")
    starter = STARTERS[layout].replace("{folder!r}", repr(str(tests_folder)))
    _write_program(installation, "hermes", starter)
    _write_program(
        installation, "pip", "import sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
    )
    return installation


def environment_of(layout: str) -> Path:
    """Return the Python whose environment has the packages of a layout."""
    python = Path(sys.executable) if layout == "0.21" else PYTHON
    if not python.exists():
        raise MissingDependency("Hermes Agent is not installed: run `make .venvs/hermes/.stamp`.")
    return python


def make_wheelhouse(folder: Path, layout: str) -> Path:
    """Pack what an installation from a clone needs, also to build; do nothing if the folder exists."""
    if not folder.exists():
        folder.mkdir(parents=True)
        # pip builds the package in the clone, with the build backend of the tests' own environment.
        _pack_with_dependencies(BUILD_BACKEND, ("",), Path(sys.executable), folder)
        _pack_with_dependencies(OWN_NAME, EXTRAS, environment_of(layout), folder)
    return folder


def _pack_with_dependencies(name: str, extras: tuple[str, ...], python: Path, folder: Path) -> None:
    """Pack a distribution of an environment and all that it requires, but not this package."""
    installed: dict[str, Distribution] = {
        canonicalize_name(it.name): it for it in distributions(path=[str(_site_packages(python))])
    }
    queue = [(name, extras)]
    packed = set[str]()
    while queue:
        name, extras = queue.pop()
        distribution = installed.get(name)
        if distribution is None or name in packed:
            continue
        packed.add(name)
        if name != OWN_NAME:
            pack_wheel(distribution, folder)
        for text in distribution.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                queue.append((canonicalize_name(requirement.name), ("", *requirement.extras)))


def pack_wheel(distribution: Distribution, folder: Path) -> None:
    """Write an installed package as a wheel: its files below site-packages, by its own list."""
    tags = [
        line.partition(":")[2].strip()
        for line in (distribution.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag:")
    ]
    name = distribution.name.replace("-", "_")
    path = folder / f"{name}-{distribution.version}-{tags[0]}.{WHEEL_SUFFIX}"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in distribution.files or ():
            if file.parts[0] != ".." and "__pycache__" not in file.parts and file.name != "direct_url.json":
                wheel.write(str(file.locate()), str(file))


def _site_packages(python: Path) -> Path:
    return Path(_run(str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"))


def _write_program(installation: HermesInstallation, name: str, source: str) -> None:
    path = installation.venv / "bin" / name
    path.write_text(f"#!{installation.venv / 'bin' / 'python'}\n{source}")
    path.chmod(0o755)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

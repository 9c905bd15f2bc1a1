from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import certifi
import pytest
from _pytest.nodeid import coerce_node_id
from hypothesis import HealthCheck, is_hypothesis_test, settings

from tests import leak_check

# Programs from Debian packages. All other dependencies come from PyPI and npm.
PROGRAMS_BY_MARKER = {"browser": "chromium", "ssh": "sshd", "tmux": "tmux"}
HERMES_STAMP = Path(__file__).parents[1] / ".venvs" / "hermes" / ".stamp"
# `make quick` runs no test with one of these markers. If all tests of a module have one, it does not import
# the module.
SLOW_MARKERS = ("slow", "node", "browser", "ssh", "tmux", "hermes")
SLOW_MODULE_PATTERN = re.compile(
    rf"^pytestmark = (?:\[[^]]*)?pytest\.mark\.(?:{'|'.join(SLOW_MARKERS)})\b", re.MULTILINE
)


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples hypothesis makes, and restore the default signal handlers.

    A shell starts background jobs with some signals ignored. Child processes inherit this, so a test would
    send Ctrl-C to programs that ignore it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    # On a busy machine, the generation of inputs is slow. That is no fault of a test.
    settings.register_profile(
        "project",
        max_examples=500 if config.getoption("--soak") else 25,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long variants, and only those")
    parser.addoption("--quick", action="store_true", help="leave out tests that are slow or need programs")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--quick`, do not import slow modules: the imports alone would take 20 seconds."""
    is_module = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if config.getoption("--quick") and is_module:
        return SLOW_MODULE_PATTERN.search(collection_path.read_text("utf-8")) is not None or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select the long variants or all other tests.

    Deselect tests whose program is missing. With `--quick`, also deselect the slow tests.
    """
    is_soak = config.getoption("--soak")
    unwanted_markers = (*missing_programs(), *(SLOW_MARKERS if config.getoption("--quick") else ()))

    def is_wanted(item: pytest.Item) -> bool:
        is_possible = not any(item.get_closest_marker(marker) for marker in unwanted_markers)
        is_long = item.get_closest_marker("soak") is not None or (is_soak and is_property_test(item))
        return is_possible and is_long == is_soak

    deselected = [item for item in items if not is_wanted(item)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if is_wanted(item)]
    if getattr(config.option, "loadgroup", False):
        append_xdist_groups(items)


def is_property_test(item: pytest.Item) -> bool:
    """Return whether hypothesis generates examples for a test. `--soak` generates more of them."""
    function = getattr(item, "obj", None)
    return item.get_closest_marker("properties") is not None or is_hypothesis_test(function)


def append_xdist_groups(items: list[pytest.Item]) -> None:
    """Append the xdist group to each test's id: pytest-xdist distributes tests by that id.

    pytest-xdist 3.8 sets an attribute that pytest 9.2 no longer reads. So without this function, it would
    distribute the tests of a group one by one.
    """
    for item in items:
        marker = item.get_closest_marker("xdist_group")
        if marker is not None and not item.nodeid.endswith(f"@{marker.args[0]}"):
            item._id = coerce_node_id(f"{item.nodeid}@{marker.args[0]}")


def missing_programs() -> dict[str, str]:
    """Return the missing programs by marker. In CI, return none, so that the tests that need them fail.

    Hermes Agent is missing only on Python 3.14 or newer: version 0.19 does not run there, so `make test` may
    have found no Python for it.
    """
    if os.environ.get("CI"):
        return {}
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = {
        marker: name for marker, name in PROGRAMS_BY_MARKER.items() if shutil.which(name, path=path) is None
    }
    if sys.version_info >= (3, 14) and not HERMES_STAMP.exists():
        missing["real_hermes"] = "Hermes Agent 0.19"
    return missing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if missing := missing_programs():
        names = ", ".join(sorted(missing.values()))
        terminalreporter.write_line(f"Deselected tests that need: {names} (see CONTRIBUTING.md)")


@pytest.fixture(autouse=True)
def _isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's HERMES_HOME, proxies and certificate files from each test."""
    monkeypatch.setenv("HERMES_HOME", str(tmp_path / "hermes"))
    # Without this variable, python-telegram-bot warns when it builds a RetryAfter, and warnings are errors.
    monkeypatch.setenv("PTB_TIMEDELTA", "true")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True, scope="session")
def _single_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one public certificate authority instead of 140: each HTTP client needs 0.04 s to read them.

    No test connects to a server with a certificate of a public authority.
    """
    bundle = Path(certifi.where()).read_text(encoding="utf-8")
    end_marker = "-----END CERTIFICATE-----\n"
    bundle_path = tmp_path_factory.mktemp("authorities") / "ca.pem"
    bundle_path.write_text(bundle.partition(end_marker)[0] + end_marker, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(bundle_path))
        yield


@pytest.fixture(autouse=True)
def _debug_log_capture(caplog: pytest.LogCaptureFixture) -> None:
    """Capture DEBUG records of all loggers, so that the leak check reads them too."""
    caplog.set_level(logging.DEBUG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if leak_check.contains_secret(
        f"{report.longreprtext}{report.caplog}{report.capstdout}{report.capstderr}"
    ):
        # Do not show the text, because it contains the secret.
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a secret of this test reached a log, an output or an error."
        if call.excinfo is not None:
            # The secret may be in the text of a failed assertion.
            lines = [f"{Path(entry.path).name}:{entry.lineno + 1}" for entry in call.excinfo.traceback[-4:]]
            report.longrepr += f" {call.excinfo.typename} at {', '.join(lines)}"
        report.sections = []
    if call.when == "teardown":
        leak_check.clear_secrets()
    return report

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path

import pytest

from tests import tripwire


@pytest.fixture(autouse=True)
def _home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the HERMES_HOME or the proxies of whoever runs it."""
    monkeypatch.setenv("HERMES_HOME", str(tmp_path / "hermes"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _every_log_line_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """The tripwire reads what libraries log as well, at their most talkative."""
    caplog.set_level(logging.DEBUG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if tripwire.found_in(f"{report.longreprtext}{report.caplog}{report.capstdout}{report.capstderr}"):
        # Without the text itself, which would spread the secret further.
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a secret of this test reached a log, an output or an error."
        report.sections = []
    if call.when == "teardown":
        tripwire.forget()
    return report

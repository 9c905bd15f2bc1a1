from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.measurement import Figure, Scale, measure_interleaved
from benchmarks.table import format_markdown

pytestmark = pytest.mark.slow

# These benchmarks take 5 to 15 seconds even at the small scale.
SLOW_BENCHMARKS = {"chats", "connect", "memory", "polling", "sharing", "startup"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak] if name in SLOW_BENCHMARKS else []) for name in BENCHMARKS],
)
def test_every_benchmark_runs_and_fits_the_table(name: str) -> None:
    figures = BENCHMARKS[name](Scale(rounds=1, is_small=True))
    assert figures
    # A failed call or command raises by itself, so only check that each figure has a base. At the small
    # scale, a process may need no more memory for its response: then the base of the growth is 0.
    assert all(figure.base > 0 or "growth" in figure.what for figure in figures)
    lines = format_markdown(figures, 0).splitlines()
    assert len({line.count("|") for line in lines[: 2 + len(figures)]}) == 1


def test_measures_are_interleaved_and_the_warm_up_round_is_ignored() -> None:
    order: list[str] = []

    def measure(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    one, two = [99.0, 1.0, 3.0, 2.0], [99.0, 30.0, 10.0, 20.0]
    measures = {"one": lambda: measure("one", one), "two": lambda: measure("two", two)}
    medians = measure_interleaved(measures, Scale(rounds=3))
    assert medians == {"one": 2.0, "two": 20.0}
    assert order == ["one", "two", "two", "one", "one", "two", "two", "one"]


def test_a_figure_equal_to_its_goal_is_ok_and_base_zero_allows_only_zero() -> None:
    assert Figure("", "ms", 4.0, "", 1.0, 4).verdict == "ok"
    assert Figure("", "ms", 4.1, "", 1.0, 4).verdict == "missed"
    assert Figure("", "", 0.0, "", 0.0, 1).verdict == "ok"
    assert Figure("", "", 1.0, "", 0.0, 1).ratio is None
    assert Figure("", "", 1.0, "", 0.0, 1).verdict == "missed"
    assert not Figure("", "ms", 4.0, "", 1.0).verdict


def test_a_missed_goal_is_no_error_and_is_in_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = Figure("slow", "ms", 5.0, "floor", 1.0, 2, {"peer": 9.0})
    zero = Figure("prompts", "", 0.0, "floor", 0.0, 1, {"peer": 1.0})
    monkeypatch.setitem(BENCHMARKS, "qr", lambda extent: [missed] * extent.rounds + [zero])
    main(["--only", "qr", "--rounds", "2", "--json"])
    out, _ = capsys.readouterr()
    figures = json.loads(out)["figures"]
    assert [figure["verdict"] for figure in figures] == ["missed", "missed", "ok"]
    assert figures[0]["ratio"] == 5.0
    assert figures[0]["peers"] == {"peer": 9.0}
    assert figures[2]["ratio"] is None

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.measuring import Figure, Scale, measure_interleaved
from benchmarks.table import format_markdown

pytestmark = pytest.mark.slow

# These take 15 seconds even at the small scale.
SLOW = {"chats", "polling"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] if name in SLOW else []) for name in BENCHMARKS]
)
def test_every_benchmark_still_runs_and_fits_the_table(name: str) -> None:
    found = BENCHMARKS[name](Scale(rounds=1, is_small=True))
    assert found
    # A failed call or command raises, so a figure without a base is the remaining error.
    assert all(figure.base > 0 for figure in found)
    lines = format_markdown(found, 0).splitlines()
    assert len({line.count("|") for line in lines[: 2 + len(found)]}) == 1


def test_the_measures_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def measure(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    one, two = [99.0, 1.0, 3.0, 2.0], [99.0, 30.0, 10.0, 20.0]
    measures = {"one": lambda: measure("one", one), "two": lambda: measure("two", two)}
    medians = measure_interleaved(measures, Scale(rounds=3))
    assert medians == {"one": 2.0, "two": 20.0}
    assert order == ["one", "two", "two", "one", "one", "two", "two", "one"]


def test_a_goal_is_met_up_to_its_very_value_and_none_at_all_is_only_met_by_none() -> None:
    assert Figure("", "ms", 4.0, "", 1.0, 4).verdict == "ok"
    assert Figure("", "ms", 4.1, "", 1.0, 4).verdict == "missed"
    assert Figure("", "", 0.0, "", 0.0, 1).verdict == "ok"
    assert Figure("", "", 1.0, "", 0.0, 1).ratio is None
    assert Figure("", "", 1.0, "", 0.0, 1).verdict == "missed"
    assert not Figure("", "ms", 4.0, "", 1.0).verdict


def test_a_missed_goal_is_no_failure_and_json_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = Figure("slow", "ms", 5.0, "floor", 1.0, 2, {"peer": 9.0})
    none = Figure("prompts", "", 0.0, "floor", 0.0, 1, {"peer": 1.0})
    monkeypatch.setitem(BENCHMARKS, "qr", lambda extent: [missed] * extent.rounds + [none])
    main(["--only", "qr", "--rounds", "2", "--json"])
    out, _ = capsys.readouterr()
    figures = json.loads(out)["figures"]
    assert [figure["verdict"] for figure in figures] == ["missed", "missed", "ok"]
    assert figures[0]["ratio"] == 5.0
    assert figures[0]["peers"] == {"peer": 9.0}
    assert figures[2]["ratio"] is None

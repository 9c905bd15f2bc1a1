"""How everything is measured: in turns, so that a machine's moods hit all alike; the median counts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]

Measure = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure: rounds that count, and sizes; `small` only proves that everything still runs."""

    rounds: int = 5
    is_small: bool = False

    def choose_size(self, size: int, small_size: int) -> int:
        """Return a size, or its small stand-in."""
        return small_size if self.is_small else size


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `goal` is how many times `base` ours may be; None where there is no goal."""

    what: str
    unit: str
    ours: float
    base_name: str
    base: float
    goal: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def ratio(self) -> float | None:
        """Ours over the base; None where the base is nothing at all."""
        return self.ratio_of(self.ours)

    def ratio_of(self, value: float) -> float | None:
        """Return how many times the base a value is; None where the base is nothing at all."""
        return value / self.base if self.base else None

    @property
    def verdict(self) -> str:
        """Say whether the goal is met."""
        if self.goal is None:
            return ""
        return "ok" if self.ours <= self.goal * self.base else "missed"


def measure_interleaved(
    measures: Mapping[str, Measure], scale: Scale, rounds_factor: int = 1
) -> dict[str, float]:
    """Take each measure once a round, each round from another one on, and return the medians by name.

    There are `times` as many rounds as the extent says, and one before them that only fills caches. The
    small extent has one in all.
    """
    names = list(measures)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1 if scale.is_small else 1 + scale.rounds * rounds_factor):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            value = measures[name]()
            if number or scale.is_small:
                taken[name].append(value)
    return {name: median(values) for name, values in taken.items()}


def command_time_measure(command: Sequence[str], environ: Mapping[str, str]) -> Measure:
    """Return a measure of a command's wall time; it raises CalledProcessError where the command fails."""

    def measure() -> float:
        begun = time.perf_counter()
        subprocess.run(command, env=dict(environ), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - begun) * 1000

    return measure


def command_output_measure(command: Sequence[str], environ: Mapping[str, str]) -> Measure:
    """Return a measure that is the number which a command prints."""

    def measure() -> float:
        done = subprocess.run(
            command, env=dict(environ), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        return float(done.stdout)

    return measure

"""Take measures in turn, so that changes in the machine's load affect all of them; report the medians."""

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
    """How much to measure. `rounds` excludes the warm-up. If `is_small`, only check that benchmarks run."""

    rounds: int = 5
    is_small: bool = False

    def choose_size(self, size: int, small_size: int) -> int:
        """Return `size`, or `small_size` if the scale is small."""
        return small_size if self.is_small else size


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table. `goal` is the allowed ratio of `ours` to `base`; None if there is no goal."""

    what: str
    unit: str
    ours: float
    base_name: str
    base: float
    goal: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def ratio(self) -> float | None:
        """The ratio of `ours` to `base`; None if `base` is 0."""
        return self.ratio_of(self.ours)

    def ratio_of(self, value: float) -> float | None:
        """Return the ratio of a value to `base`; None if `base` is 0."""
        return value / self.base if self.base else None

    @property
    def verdict(self) -> str:
        """Return "ok" or "missed"; "" if there is no goal."""
        if self.goal is None:
            return ""
        return "ok" if self.ours <= self.goal * self.base else "missed"


def measure_interleaved(
    measures: Mapping[str, Measure], scale: Scale, rounds_factor: int = 1
) -> dict[str, float]:
    """Take each measure once in each round, and return the medians by name.

    Each round starts with another measure. Before the `scale.rounds * rounds_factor` rounds, there is a
    warm-up round that fills caches. If the scale is small, there is only one round.
    """
    names = list(measures)
    values_by_name: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1 if scale.is_small else 1 + scale.rounds * rounds_factor):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            value = measures[name]()
            if number or scale.is_small:
                values_by_name[name].append(value)
    return {name: median(values) for name, values in values_by_name.items()}


def command_time_measure(command: Sequence[str], environ: Mapping[str, str]) -> Measure:
    """Return a measure of a command's wall time, in ms; it raises CalledProcessError if the command fails."""

    def measure() -> float:
        started_at = time.perf_counter()
        subprocess.run(command, env=dict(environ), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - started_at) * 1000

    return measure


def command_output_measure(command: Sequence[str], environ: Mapping[str, str]) -> Measure:
    """Return a measure that runs a command and returns the number that the command prints."""

    def measure() -> float:
        process = subprocess.run(
            command, env=dict(environ), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        return float(process.stdout)

    return measure

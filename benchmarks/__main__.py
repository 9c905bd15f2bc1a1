"""`python -m benchmarks`: every figure in one table. `--only`, `--rounds` and `--json` as you like."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from benchmarks import (
    chats,
    concurrency,
    drawing,
    hostile,
    hot_path,
    logins,
    memory,
    polling,
    sharing,
    startup,
    table,
)
from benchmarks.measuring import Extent, Figure

BENCHMARKS: dict[str, Callable[[Extent], list[Figure]]] = {
    "startup": startup.figures,
    "hot-path": hot_path.figures,
    "concurrency": concurrency.figures,
    "hostile": hostile.figures,
    "logins": logins.figures,
    "sharing": sharing.figures,
    "memory": memory.figures,
    "polling": polling.figures,
    "qr": drawing.figures,
    "chats": chats.figures,
}


def main(argv: list[str]) -> None:
    """Measure what was asked for and print it; a goal that is missed is no failure here."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    _stay_on_this_machine()
    _raise_open_files()
    begun, found = time.perf_counter(), list[Figure]()
    for name in options.only or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found += BENCHMARKS[name](Extent(options.rounds))
    write = table.as_json if options.json else table.markdown
    print(write(found, time.perf_counter() - begun))


def _stay_on_this_machine() -> None:
    # Every server is on loopback; a proxy would be what is measured.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]


def _raise_open_files() -> None:
    # A thousand connections are more than many systems allow at first.
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 4096:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


if __name__ == "__main__":
    main(sys.argv[1:])

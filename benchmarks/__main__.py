"""`python -m benchmarks` measures every figure and prints one table. See `--only`, `--rounds`, `--json`."""

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
    connect,
    hostile,
    hot_path,
    logins,
    many_connections,
    memory,
    polling,
    qr_codes,
    shared_login,
    startup,
    table,
)
from benchmarks.measurement import Figure, Scale

BENCHMARKS: dict[str, Callable[[Scale], list[Figure]]] = {
    "startup": startup.measure_figures,
    "hot-path": hot_path.measure_figures,
    "concurrency": concurrency.measure_figures,
    "connect": connect.measure_figures,
    "hostile": hostile.measure_figures,
    "logins": logins.measure_figures,
    "sharing": shared_login.measure_figures,
    "memory": memory.measure_figures,
    "polling": polling.measure_figures,
    "many-connections": many_connections.measure_figures,
    "qr": qr_codes.measure_figures,
    "chats": chats.measure_figures,
}


def main(argv: list[str]) -> None:
    """Measure the requested benchmarks and print the figures. A missed goal is not an error."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, help="run only this benchmark; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    _remove_proxies()
    _raise_open_file_limit()
    started_at, figures = time.perf_counter(), list[Figure]()
    for name in options.only or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures += BENCHMARKS[name](Scale(options.rounds))
    write = table.format_json if options.json else table.format_markdown
    print(write(figures, time.perf_counter() - started_at))


def _remove_proxies() -> None:
    # Every server is on loopback. With a proxy, the requests would measure the proxy.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]


def _raise_open_file_limit() -> None:
    # A thousand connections exceed the default limit of many systems.
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 4096:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Bots: time from process start to the first poll, and a hundred users who start a login at once.

The bot, the authorization server and the platform's API are three processes. The API runs in this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast
from urllib.parse import urlsplit

from benchmarks.login_home import environ_for
from benchmarks.measurement import ROOT, Figure, Scale, measure_interleaved
from tests.parts import bot_api, discord_api

_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.001
_FIRST_USER = 1000
# Operators usually configure several servers.
_SERVER_COUNT = 5
_QR_BUTTON = "QR code"
Report = dict[str, Any]


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure start-up and crowds on Telegram and Discord."""
    return [*_measure_telegram(scale), *_measure_discord(scale)]


def _measure_telegram(scale: Scale) -> list[Figure]:
    with bot_api.serve_bot_api() as api:

        def start(kind: str) -> float:
            return _measure_start_milliseconds(kind, api.origin, api.token, lambda: api.is_polling)

        figures = _measure_starts("telegram", start, "process start to the first getUpdates", scale)
    count = scale.choose_size(100, 3)
    reports, floors = list[Report](), list[Report]()
    for _ in range(scale.choose_size(scale.rounds, 1)):
        reports.append(_run_telegram_crowd("telegram", count))
        floors.append(_run_telegram_crowd("telegram floor", count))
    for percent in (50, 99, 100):
        prompts, greetings = (
            median(_percentile(report["prompts"], percent) for report in run_reports)
            for run_reports in (reports, floors)
        )
        what = f"{count} Telegram logins at once, command to prompt, {_percentile_label(percent)}"
        peers = {"python-telegram-bot greets": greetings}
        figures.append(Figure(what, "ms", prompts, "allowed", 1000, 1 if percent == 100 else None, peers))
    pictures = median(_percentile(report["pictures"], 100) for report in reports)
    what = f"{count} QR codes at once, press to picture, {_percentile_label(100)}"
    figures.append(Figure(what, "ms", pictures, "one by one", 50.0 * count))
    return [*figures, _longest_callback_figure("Telegram", reports)]


def _measure_discord(scale: Scale) -> list[Figure]:
    with discord_api.serve_discord_api() as api:

        def start(kind: str) -> float:
            before = api.gateway.ready_count
            return _measure_start_milliseconds(
                kind, api.url, api.token, lambda: api.gateway.ready_count > before
            )

        figures = _measure_starts("discord", start, "process start to READY", scale)
    count = scale.choose_size(100, 3)
    reports = [_run_discord_crowd(count) for _ in range(scale.choose_size(scale.rounds, 1))]
    for report_key, allowed, goals in (("answers", 300, {100: 1.0}), ("prompts", 1000, {})):
        step = "first answer" if report_key == "answers" else "prompt"
        for percent in (50, 99, 100):
            duration_ms = median(_percentile(report[report_key], percent) for report in reports)
            what = f"{count} Discord logins at once, command to {step}, {_percentile_label(percent)}"
            figures.append(Figure(what, "ms", duration_ms, "allowed", allowed, goals.get(percent)))
    return [*figures, _longest_callback_figure("Discord", reports)]


def _measure_starts(kind: str, start: Callable[[str], float], label: str, scale: Scale) -> list[Figure]:
    """Return the time until a bot receives events, and its CPU time (a busy machine distorts this less)."""
    floor, cpu = f"{kind} floor", dict[str, list[float]]()

    def measure_start(bot_kind: str) -> float:
        before = _children_cpu_seconds()
        duration_ms = start(bot_kind)
        cpu.setdefault(bot_kind, []).append(1000 * (_children_cpu_seconds() - before))
        return duration_ms

    medians = measure_interleaved(
        {bot_kind: partial(measure_start, bot_kind) for bot_kind in (kind, floor)}, scale, rounds_factor=2
    )
    library = {"telegram": "python-telegram-bot", "discord": "discord.py"}[kind]
    cpu_medians = {bot_kind: median(values) for bot_kind, values in cpu.items()}
    return [
        Figure(label, "ms", medians[kind], library, medians[floor], 1.3),
        Figure(f"{label}, CPU", "ms", cpu_medians[kind], library, cpu_medians[floor], 1.3),
    ]


def _children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _longest_callback_figure(platform: str, reports: Sequence[Report]) -> Figure:
    """Return the figure of the longest callback, with the longest wait and the CPU time as its peers."""
    longest = median(1000 * report["wall"] for report in reports)
    others = {
        "longest wait for a turn": median(1000 * report["wait"] for report in reports),
        "CPU of the process": median(1000 * report["used"] for report in reports),
    }
    what = f"longest callback in {platform}'s loop meanwhile"
    return Figure(what, "ms", longest, "allowed", 50, 1, others)


def _percentile_label(percent: int) -> str:
    return "the last" if percent == 100 else f"{percent} % within"


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _measure_start_milliseconds(kind: str, url: str, token: str, is_ready: Callable[[], bool]) -> float:
    with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
        home = _write_home(Path(folder), "http://127.0.0.1:9/mcp")
        started_at = time.perf_counter()
        with _run_bot(kind, url, token, home, "1") as bot:
            _wait_until(is_ready, bot)
            duration_ms = (time.perf_counter() - started_at) * 1000
    # Wait until the API no longer counts this bot as connected; then the next one can start.
    if kind.startswith("telegram"):
        _wait_until(lambda: not is_ready(), None)
    return duration_ms


def _run_telegram_crowd(kind: str, count: int) -> Report:
    """Let all users start a login at once. When all have a prompt, let all press the QR button at once.

    The floor bot sends a greeting with a button instead of a prompt.
    """
    with ExitStack() as stack:
        api = stack.enter_context(bot_api.serve_bot_api())
        numbers = range(_FIRST_USER, _FIRST_USER + count + 1)
        people = [api.add_user(number, f"Person {number}") for number in numbers]
        for person in people:
            api.private_chat(person).is_started = True
        bot = stack.enter_context(_run_monitored_bot(kind, api.origin, api.token, numbers))
        _wait_until(lambda: api.is_polling, bot)

        def count_calls(method: str) -> int:
            return len(api.calls_of(method))

        first, *crowd = people
        api.say(first, "/connect bench0")
        _wait_until(lambda: count_calls("sendMessage") == 1, bot)
        _send_command(bot, "begin")
        command_dates = [api.say(person, "/connect bench0").date for person in crowd]
        _wait_until(lambda: count_calls("sendMessage") == 1 + count, bot, pause_seconds=0.1)
        prompts = [api.messages(person)[-1] for person in crowd]
        report = _send_command(bot, "report")
        report["prompts"] = _durations_milliseconds(command_dates, [prompt.date for prompt in prompts])
        if not all(prompt.buttons for prompt in prompts):
            raise RuntimeError("The bot sent another message than a prompt.")
        if kind != "telegram":
            return report
        presses = [
            api.press(person, prompt, _QR_BUTTON) for person, prompt in zip(crowd, prompts, strict=True)
        ]
        _wait_until(lambda: count_calls("sendPhoto") == count, bot, pause_seconds=0.1)
        pictures = [api.messages(person)[-1].date for person in crowd]
        report["pictures"] = _durations_milliseconds([press.pressed_at for press in presses], pictures)
        return {**report, **_send_command(bot, "report")}


def _run_discord_crowd(count: int) -> Report:
    """Let all users of a guild start a login at once."""
    with ExitStack() as stack:
        api = stack.enter_context(discord_api.serve_discord_api())
        people = [api.add_user(f"person{number}") for number in range(count + 1)]
        guild = api.add_guild("Home", people)
        channel = guild.channel("general")
        ids = [int(person.id) for person in people]
        bot = stack.enter_context(_run_monitored_bot("discord", api.url, api.token, ids))
        _wait_until(lambda: len(api.commands) == 3, bot)
        first, *crowd = people
        api.wait_for_response(api.slash(first, channel, "connect", server="bench0"), seconds=_WAIT_SECONDS)
        _send_command(bot, "begin")
        interactions = [api.slash(person, channel, "connect", server="bench0") for person in crowd]
        _wait_until(
            lambda: (
                not any(
                    interaction.original is None or interaction.original.loading
                    for interaction in interactions
                )
            ),
            bot,
            pause_seconds=0.1,
        )
        created_at = [interaction.created_at for interaction in interactions]
        report = _send_command(bot, "report")
        acknowledged_at = [cast("float", interaction.acknowledged_at) for interaction in interactions]
        report["answers"] = _durations_milliseconds(created_at, acknowledged_at)
        prompted_at = {
            urlsplit(call.path).path.split("/")[3]: call.time
            for call in api.calls
            if call.path.startswith("/webhooks/")
        }
        report["prompts"] = _durations_milliseconds(
            created_at, [prompted_at[interaction.token] for interaction in interactions]
        )
        return report


def _durations_milliseconds(started_at: Sequence[float], ended_at: Sequence[float]) -> list[float]:
    return [1000 * (end - begin) for begin, end in zip(started_at, ended_at, strict=True)]


def _write_home(home: Path, url: str) -> Path:
    servers = {f"bench{number}": {"url": url, "auth": "oauth"} for number in range(_SERVER_COUNT)}
    # JSON is YAML.
    (home / "config.yaml").write_text(json.dumps({"mcp_servers": servers}), encoding="utf-8")
    return home


@contextmanager
def _run_monitored_bot(
    kind: str, url: str, token: str, user_ids: Sequence[int]
) -> Generator[subprocess.Popen[str]]:
    """Run a bot whose event loop is monitored, and an authorization server for it."""
    command = [sys.executable, "-m", "benchmarks.chat_server"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder,
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            home = _write_home(Path(folder), server.stdout.readline().strip())
            with _run_bot(kind, url, token, home, ",".join(map(str, user_ids)), monitor_flag="1") as bot:
                yield bot
        finally:
            server.stdin.close()


@contextmanager
def _run_bot(
    kind: str, url: str, token: str, home: Path, user_ids: str, monitor_flag: str = ""
) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.chat_bot", kind, url, str(home), user_ids]
    environ = {**environ_for(home), "BOT_TOKEN": token, "BOT_WATCHED": monitor_flag}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, text=True) as bot:
        try:
            yield bot
        finally:
            bot.kill()


def _send_command(bot: subprocess.Popen[str], command: str) -> Report:
    assert bot.stdin is not None
    assert bot.stdout is not None
    bot.stdin.write(f"{command}\n")
    bot.stdin.flush()
    return cast("Report", json.loads(bot.stdout.readline()))


def _wait_until(
    condition: Callable[[], bool], bot: subprocess.Popen[str] | None, pause_seconds: float = _POLL_SECONDS
) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        if (bot is not None and bot.poll() is not None) or time.monotonic() > deadline:
            raise RuntimeError("A bot ended or did not do its work in time.")
        time.sleep(pause_seconds)

"""Bots: process start to hearing people, and a hundred of them who begin a login at once.

Bot, authorization server and the platform's endpoint are three processes; the endpoint is in this one.
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

from benchmarks.given import environ
from benchmarks.measuring import ROOT, Extent, Figure, interleaved
from tests.parts import bot_api, discord_api

_WAIT_SECONDS = 60.0
_LOOK_SECONDS = 0.001
_FIRST_USER = 1000
# An operator has several.
_SERVERS = 5
_QR = "QR code"
Report = dict[str, Any]


def figures(extent: Extent) -> list[Figure]:
    """Measure start-up and crowds of both."""
    return [*_telegram(extent), *_discord(extent)]


def _telegram(extent: Extent) -> list[Figure]:
    with bot_api.running() as api:

        def start(kind: str) -> float:
            return _start_milliseconds(kind, api.origin, api.token, lambda: api.polling)

        found = _starts("telegram", start, "process start to the first getUpdates", extent)
    count = extent.of(100, 3)
    reports, floors = list[Report](), list[Report]()
    for _ in range(extent.of(extent.rounds, 1)):
        reports.append(_telegram_crowd("telegram", count))
        floors.append(_telegram_crowd("telegram floor", count))
    for percent in (50, 99, 100):
        prompts, greetings = (
            median(_within(report["prompts"], percent) for report in each) for each in (reports, floors)
        )
        what = f"{count} Telegram logins at once, command to prompt, {_said(percent)}"
        peers = {"python-telegram-bot greets": greetings}
        found.append(Figure(what, "ms", prompts, "allowed", 1000, 1 if percent == 100 else None, peers))
    pictures = median(_within(report["pictures"], 100) for report in reports)
    what = f"{count} QR codes at once, press to picture, {_said(100)}"
    found.append(Figure(what, "ms", pictures, "one by one", 50.0 * count))
    return [*found, _blocked("Telegram", reports)]


def _discord(extent: Extent) -> list[Figure]:
    with discord_api.running() as api:

        def start(kind: str) -> float:
            before = api.gateway.ready
            return _start_milliseconds(kind, api.url, api.token, lambda: api.gateway.ready > before)

        found = _starts("discord", start, "process start to READY", extent)
    count = extent.of(100, 3)
    reports = [_discord_crowd(count) for _ in range(extent.of(extent.rounds, 1))]
    for of, allowed, goals in (("answers", 300, {100: 1.0}), ("prompts", 1000, {})):
        step = "first answer" if of == "answers" else "prompt"
        for percent in (50, 99, 100):
            taken = median(_within(report[of], percent) for report in reports)
            what = f"{count} Discord logins at once, command to {step}, {_said(percent)}"
            found.append(Figure(what, "ms", taken, "allowed", allowed, goals.get(percent)))
    return [*found, _blocked("Discord", reports)]


def _starts(kind: str, start: Callable[[str], float], what: str, extent: Extent) -> list[Figure]:
    """Return the time until a bot hears people, and its CPU time, which other work distorts less."""
    floor, cpu = f"{kind} floor", dict[str, list[float]]()

    def taking(which: str) -> float:
        before = _children_seconds()
        taken = start(which)
        cpu.setdefault(which, []).append(1000 * (_children_seconds() - before))
        return taken

    medians = interleaved({each: partial(taking, each) for each in (kind, floor)}, extent, times=2)
    library = {"telegram": "python-telegram-bot", "discord": "discord.py"}[kind]
    used = {each: median(values) for each, values in cpu.items()}
    return [
        Figure(what, "ms", medians[kind], library, medians[floor], 1.3),
        Figure(f"{what}, CPU", "ms", used[kind], library, used[floor], 1.3),
    ]


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _blocked(platform: str, reports: Sequence[Report]) -> Figure:
    """Return the figure of the longest callback, with what else there is to say of that time."""
    longest = median(1000 * report["wall"] for report in reports)
    others = {
        "longest wait for a turn": median(1000 * report["wait"] for report in reports),
        "CPU of the process": median(1000 * report["used"] for report in reports),
    }
    what = f"longest callback in {platform}'s loop meanwhile"
    return Figure(what, "ms", longest, "allowed", 50, 1, others)


def _said(percent: int) -> str:
    return "the last" if percent == 100 else f"{percent} % within"


def _within(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _start_milliseconds(kind: str, url: str, token: str, is_heard: Callable[[], bool]) -> float:
    with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
        home = _home(Path(folder), "http://127.0.0.1:9/mcp")
        begun = time.perf_counter()
        with _bot(kind, url, token, home, "1") as bot:
            _wait(is_heard, bot)
            taken = (time.perf_counter() - begun) * 1000
    # The endpoint is to have forgotten it before the next one comes.
    if kind.startswith("telegram"):
        _wait(lambda: not is_heard(), None)
    return taken


def _telegram_crowd(kind: str, count: int) -> Report:
    """Let people begin a login at once, and press for a QR code at once when all are prompted.

    The library's own bot greets them, with a button.
    """
    with ExitStack() as stack:
        api = stack.enter_context(bot_api.running())
        numbers = range(_FIRST_USER, _FIRST_USER + count + 1)
        people = [api.user(number, f"Person {number}") for number in numbers]
        for person in people:
            api.private(person).started = True
        bot = stack.enter_context(_watched(kind, api.origin, api.token, numbers))
        _wait(lambda: api.polling, bot)

        def sent(method: str) -> int:
            return len(api.calls_of(method))

        first, *crowd = people
        api.say(first, "/connect bench0")
        _wait(lambda: sent("sendMessage") == 1, bot)
        _ask(bot, "begin")
        asked = [api.say(person, "/connect bench0").date for person in crowd]
        _wait(lambda: sent("sendMessage") == 1 + count, bot, pause=0.1)
        prompts = [api.messages(person)[-1] for person in crowd]
        report = _ask(bot, "report")
        report["prompts"] = _milliseconds(asked, [prompt.date for prompt in prompts])
        if not all(prompt.buttons for prompt in prompts):
            raise RuntimeError("Something else than a prompt came.")
        if kind != "telegram":
            return report
        pressed = [api.press(person, prompt, _QR) for person, prompt in zip(crowd, prompts, strict=True)]
        _wait(lambda: sent("sendPhoto") == count, bot, pause=0.1)
        pictures = [api.messages(person)[-1].date for person in crowd]
        report["pictures"] = _milliseconds([press.at for press in pressed], pictures)
        return {**report, **_ask(bot, "report")}


def _discord_crowd(count: int) -> Report:
    """Let people of one guild begin a login at once."""
    with ExitStack() as stack:
        api = stack.enter_context(discord_api.running())
        people = [api.user(f"person{number}") for number in range(count + 1)]
        guild = api.guild("Home", people)
        channel = guild.channel("general")
        ids = [int(person.id) for person in people]
        bot = stack.enter_context(_watched("discord", api.url, api.token, ids))
        _wait(lambda: len(api.commands) == 3, bot)
        first, *crowd = people
        api.answer(api.slash(first, channel, "connect", server="bench0"), seconds=_WAIT_SECONDS)
        _ask(bot, "begin")
        asked = [api.slash(person, channel, "connect", server="bench0") for person in crowd]
        _wait(
            lambda: not any(each.original is None or each.original.loading for each in asked), bot, pause=0.1
        )
        begun = [each.created_at for each in asked]
        report = _ask(bot, "report")
        answered = [cast("float", each.acknowledged_at) for each in asked]
        report["answers"] = _milliseconds(begun, answered)
        prompted = {
            urlsplit(call.path).path.split("/")[3]: call.time
            for call in api.calls
            if call.path.startswith("/webhooks/")
        }
        report["prompts"] = _milliseconds(begun, [prompted[each.token] for each in asked])
        return report


def _milliseconds(begun: Sequence[float], ended: Sequence[float]) -> list[float]:
    return [1000 * (end - begin) for begin, end in zip(begun, ended, strict=True)]


def _home(place: Path, url: str) -> Path:
    servers = {f"bench{number}": {"url": url, "auth": "oauth"} for number in range(_SERVERS)}
    # JSON is YAML.
    (place / "config.yaml").write_text(json.dumps({"mcp_servers": servers}), encoding="utf-8")
    return place


@contextmanager
def _watched(kind: str, url: str, token: str, users: Sequence[int]) -> Generator[subprocess.Popen[str]]:
    """Run a bot whose loop is watched, beside an authorization server."""
    command = [sys.executable, "-m", "benchmarks.chat_server"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder,
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            home = _home(Path(folder), server.stdout.readline().strip())
            with _bot(kind, url, token, home, ",".join(map(str, users)), watched="1") as bot:
                yield bot
        finally:
            server.stdin.close()


@contextmanager
def _bot(
    kind: str, url: str, token: str, home: Path, users: str, watched: str = ""
) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.chat_bot", kind, url, str(home), users]
    given = {**environ(home), "BOT_TOKEN": token, "BOT_WATCHED": watched}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=given, stdin=pipe, stdout=pipe, text=True) as bot:
        try:
            yield bot
        finally:
            bot.kill()


def _ask(bot: subprocess.Popen[str], word: str) -> Report:
    assert bot.stdin is not None
    assert bot.stdout is not None
    bot.stdin.write(f"{word}\n")
    bot.stdin.flush()
    return cast("Report", json.loads(bot.stdout.readline()))


def _wait(holds: Callable[[], bool], bot: subprocess.Popen[str] | None, pause: float = _LOOK_SECONDS) -> None:
    patience = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if (bot is not None and bot.poll() is not None) or time.monotonic() > patience:
            raise RuntimeError("A bot did not do what it should.")
        time.sleep(pause)

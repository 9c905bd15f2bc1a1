"""`python -m fuzz NAME [libFuzzer's options]` runs one harness under atheris; without a name, lists them.

What atheris finds lies in .venvs/fuzz/NAME: its corpus, kept for the next time, and an input per failure.
"""

import sys
from importlib import import_module
from pathlib import Path

from fuzz import HARNESSES

ROOT = Path(__file__).resolve().parents[1]
# An honest input takes microseconds; a megabyte at once, a fraction of a second.
LIMITS = ("-timeout=5", "-max_len=65536", "-rss_limit_mb=1024")


def main(name: str, options: list[str]) -> None:
    """Fuzz until libFuzzer ends the process."""
    atheris = import_module("atheris")
    sys.stderr.write(f"--- {name}\n")
    with atheris.instrument_imports(include=["hermes_mcp_auth_remote"]):
        harness = import_module(f"fuzz.{name}")
    folder = ROOT / ".venvs" / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(harness.SEEDS):
        (folder / f"seed-{number}").write_bytes(seed)
    found = f"-artifact_prefix={folder.parent}/{name}-"
    atheris.Setup([f"fuzz {name}", *LIMITS, found, *options, str(folder)], harness.fuzz_one_input)
    atheris.Fuzz()


if sys.argv[1:]:
    main(sys.argv[1], sys.argv[2:])
else:
    sys.stdout.write("\n".join(HARNESSES) + "\n")

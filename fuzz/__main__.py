"""Run one harness under atheris: `python -m fuzz NAME [options of libFuzzer]`. Without a name, list them.

.venvs/fuzz/NAME holds the corpus, which the next run continues. .venvs/fuzz/NAME-* are inputs that failed.
"""

import sys
from importlib import import_module
from pathlib import Path

from fuzz import HARNESSES

ROOT = Path(__file__).resolve().parents[1]
# A usual input takes microseconds; a megabyte takes a fraction of a second.
LIMITS = ("-timeout=5", "-max_len=65536", "-rss_limit_mb=1024")


def main(name: str, options: list[str]) -> None:
    """Fuzz one harness until libFuzzer ends the process."""
    atheris = import_module("atheris")
    sys.stderr.write(f"--- {name}\n")
    with atheris.instrument_imports(include=["hermes_mcp_auth_remote"]):
        harness = import_module(f"fuzz.{name}")
    folder = ROOT / ".venvs" / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(harness.SEEDS):
        (folder / f"seed-{number}").write_bytes(seed)
    artifact_prefix = f"-artifact_prefix={folder.parent}/{name}-"
    atheris.Setup([f"fuzz {name}", *LIMITS, artifact_prefix, *options, str(folder)], harness.fuzz_one_input)
    atheris.Fuzz()


if sys.argv[1:]:
    main(sys.argv[1], sys.argv[2:])
else:
    sys.stdout.write("\n".join(HARNESSES) + "\n")

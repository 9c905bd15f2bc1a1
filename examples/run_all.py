"""Run each example against the demo server, in an environment of its own: `make frameworks`.

The access token has expired before each run, so each example refreshes it. To run only some examples, name
them as arguments.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
sys.path.insert(0, str(ROOT))

from tests.cli.commands import Cli, log_in  # noqa: E402  found through the path above
from tests.parts.authorization_server import serve_demo  # noqa: E402

# The example, and what it needs beside this package.
REQUIREMENTS = {
    "langchain_tools": ("langchain-mcp-adapters==0.3.2", "httpx"),
    "openai_agents_server": ("openai-agents==0.24.*",),
    "pydantic_ai_toolset": ("pydantic-ai-slim[mcp]==2.68.*",),
    "strands_agents": ("strands-agents==1.62.*",),
    "mcp_use_client": ("mcp-use==1.7.1", "httpx"),
    "fastmcp_client": ("fastmcp==4.2.*",),
    "llama_index_tools": ("llama-index-tools-mcp==0.6.*",),
    "google_adk_toolset": ("google-adk==2.13.*", "mcp<2"),
    "smolagents_tools": ("smolagents[mcp]==1.26.*", "mcp<2"),
    "crewai_tools_adapter": ("crewai-tools[mcp]==1.15.*",),
}
UV = Path(sys.executable).parent / "uv"
# Some frameworks import for a minute if the machine is busy.
RUN_SECONDS = 300


def main(names: list[str]) -> int:
    """Run the examples; return the number of those that failed."""
    failures = 0
    with serve_demo() as demo, tempfile.TemporaryDirectory() as folder:
        cli = Cli(Path(folder), demo.authorization_server.minted_secrets)
        log_in(cli, demo, "--url", demo.mcp_url)
        [stored_name] = [name.partition(".")[0] for name in cli.credential_files() if name.count(".") == 1]
        for name in names or REQUIREMENTS:
            python = prepare_environment(name)
            demo.authorization_server.ledger.revoke_access_tokens()
            cli.change_stored_tokens(stored_name, expires_at=1)
            demo.authorization_server.requests.clear()
            started_at = time.monotonic()
            exit_code, output, errors = run_example(python, name, demo.mcp_url, cli.environ())
            refreshes = demo.authorization_server.count_requests("refresh")
            works = exit_code == 0 and "5" in output and refreshes == 1
            versions = installed_versions(python, REQUIREMENTS[name])
            seconds = time.monotonic() - started_at
            print(
                f"{'ok    ' if works else 'FAILED'} {name}: {versions}, {refreshes} refresh, {seconds:.1f} s"
            )
            if not works:
                failures += 1
                print(output[-2000:], errors[-2000:], sep="\n")
    return failures


def run_example(python: Path, name: str, url: str, environ: dict[str, str]) -> tuple[int, str, str]:
    """Run an example for at most RUN_SECONDS; return its exit code, standard output and standard error."""
    with subprocess.Popen(
        [str(python), str(FOLDER / f"{name}.py"), url],
        env={**environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            # The other examples still run.
            process.kill()
            output, errors = process.communicate()
            errors += f"\nIt was stopped after {RUN_SECONDS} s."
        return process.returncode, output, errors


def prepare_environment(name: str) -> Path:
    """Create the environment of an example if it is missing; return its Python."""
    folder = ROOT / ".venvs" / "frameworks" / name
    python, stamp = folder / "bin" / "python", folder / "stamp"
    if not stamp.exists():
        subprocess.run(
            [str(UV), "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True
        )
        packages = ["-e", f"{ROOT}[httpx2]", *REQUIREMENTS[name]]
        subprocess.run([str(UV), "pip", "install", "-q", "--python", str(python), *packages], check=True)
        stamp.touch()
    return python


def installed_versions(python: Path, requirements: tuple[str, ...]) -> str:
    """Return the versions of the framework and of the MCP SDK."""
    command = [str(UV), "pip", "freeze", "--python", str(python)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {re.split("[=<[]", requirement)[0] for requirement in requirements} | {"mcp"}
    return " ".join(line for line in lines if line.partition("==")[0] in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

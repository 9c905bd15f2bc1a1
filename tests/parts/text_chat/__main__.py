"""The command line of this package with one more row in the table of platforms."""

import sys

from hermes_mcp_auth_remote.cli.__main__ import main
from hermes_mcp_auth_remote.platforms import PLATFORMS
from tests.parts.text_chat import WIRE

if __name__ == "__main__":
    PLATFORMS[WIRE.name] = WIRE
    sys.exit(main(sys.argv[1:]))

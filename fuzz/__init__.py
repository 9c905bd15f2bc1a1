"""Fuzz every parser: one harness for each. atheris and the tests run them.

A harness has `SEEDS`, its first inputs, and `fuzz_one_input`, which ignores McpAuthError, lets every other
exception through, and checks the result. `make fuzz` runs each for 20 seconds, `make fuzz FUZZ_SECONDS=600`
for longer.
"""

HARNESSES = (
    "challenge",
    "metadata",
    "registration",
    "token",
    "device",
    "paste",
    "config",
    "store_files",
    "fast_token",
)

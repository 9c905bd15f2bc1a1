"""Fuzz every parser: one harness for each. atheris and the tests run them.

A harness has `SEEDS` (its first inputs) and `fuzz_one_input`, which checks the result. `fuzz_one_input`
ignores McpAuthError and passes on every other exception. `make fuzz` runs each harness for 20 seconds. To
run them longer, use `make fuzz FUZZ_SECONDS=600`.
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
    "bridge_messages",
    "bridge_stream",
)

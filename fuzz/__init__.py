"""Hostile input for everything that parses: a harness for each parser, run by atheris and by the tests.

A harness has `SEEDS`, inputs to begin with, and `fuzz_one_input`, which forgives only McpAuthError and
looks at what came out. `make fuzz` runs each for 20 seconds, `make fuzz FUZZ_SECONDS=600` for longer.
"""

HARNESSES = ("challenge", "metadata", "registration", "token", "device", "paste", "config", "stored", "peek")

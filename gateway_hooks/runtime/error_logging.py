"""Faults of ours while something is done about what a person wrote: logged here, and raised to nobody.

The frames above us, of the application and of the chat library, hold the message with the paste in it. An
error that reaches them is logged, or sent to an error tracker, together with that.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from hermes_mcp_auth_remote.traceback_redaction import hide_locals, raise_location


@contextmanager
def log_errors(message: str, log: logging.Logger) -> Generator[None]:
    """Log what an Exception in the block is and where it was raised, without its text, and go on."""
    try:
        yield
    except Exception as fault:  # noqa: BLE001  whatever it is, the callers must not get it
        log.error("%s, by a fault of ours: %s in %s.", message, type(fault).__name__, raise_location(fault))  # noqa: TRY400
    except BaseException as ending:
        hide_locals(ending)
        raise

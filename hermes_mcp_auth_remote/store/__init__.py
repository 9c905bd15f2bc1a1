"""Persistent state: credentials and pending logins, in and beside the files that Hermes Agent reads.

Import from the modules. This package imports nothing, so that `fast_token` loads quickly.
"""

# The store refuses to read or write a larger file.
MAX_FILE_BYTES = 1_048_576

"""What lasts: credentials and pending logins, in and beside the files that Hermes Agent reads.

Import from the modules: this one stays empty, so that `peek` costs next to nothing.
"""

# No file of the store is larger: a larger one is refused before it is read.
MAX_FILE_BYTES = 1_048_576

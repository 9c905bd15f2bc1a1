"""What lasts: credentials and pending logins, in and beside the files that Hermes Agent reads.

Import from the modules: this one stays empty, so that `peek` costs next to nothing.
"""

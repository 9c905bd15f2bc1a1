"""Sequences of `oauth/` steps for one `Server`: discovery, client selection, login preparation. No I/O."""

"""Sequences over `oauth/` that know a `Server`: discovery, client selection, login preparation. No I/O."""

"""The way out: one client of our own, with its own limits, for every request to a server."""

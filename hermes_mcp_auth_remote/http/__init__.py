"""The HTTP client for every request to a server, with its own limits and checks."""

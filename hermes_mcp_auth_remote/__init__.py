"""Headless-first OAuth 2.1 for remote MCP servers."""

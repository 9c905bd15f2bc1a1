"""Let users log in to MCP servers from a chat: one shared dialog, one thin adapter per platform."""

"""How a chat takes part in a login: one conversation, one thin adapter per platform."""

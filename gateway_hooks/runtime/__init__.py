"""Run a conversation: handle events, call the service, keep shown messages in step with the store."""

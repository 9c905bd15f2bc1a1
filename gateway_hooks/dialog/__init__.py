"""What a chat shows and what a person means: pure functions, values and the protocols of a platform."""

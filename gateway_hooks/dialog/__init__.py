"""Render what a chat shows and parse what a user means: pure functions, values, platform protocols."""

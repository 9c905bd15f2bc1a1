"""Logins over SSH and on a desktop: the prompt, and what it shows, opens and listens to."""

"""Log in from a terminal, over SSH or on a desktop: prompt, screen, browser and loopback listener."""

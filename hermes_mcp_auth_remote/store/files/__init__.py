"""The store in files: HERMES_HOME/mcp-tokens, in the format that Hermes Agent reads too."""

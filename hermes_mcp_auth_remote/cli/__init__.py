"""The command line. Each verb is a module that is imported only if the user asks for it."""

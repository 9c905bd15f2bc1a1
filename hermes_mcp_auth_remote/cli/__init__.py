"""The command line: a module per verb, each imported only when it is asked for."""

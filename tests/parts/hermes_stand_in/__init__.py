"""A stand-in for Hermes Agent 0.21: the modules, names and behaviour that the plugin touches.

PyPI stops at 0.19, so these tests cannot run a later Hermes. The stand-in was written from the public text of
upstream's repository; `sources.py` says which file and commit were read for each name. It is a program:

    python tests/parts/hermes_stand_in gateway run       # with HERMES_HOME, as the real `hermes`
    python tests/parts/hermes_stand_in mcpauth NAME      # a plugin's command

and a set of modules for tests in this process: `install_layout()` puts them into `sys.modules`.
"""

"""The command line: run_search.py VERB ...

May import every room. Each verb imports what it needs when it runs.
"""

from s2s_search.cli.command_line import main

__all__ = ["main"]

"""The command line, for those who have not installed the package: python run_search.py VERB ..."""

import sys

from s2s_search.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())

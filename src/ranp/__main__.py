"""`python -m ranp`: the command line, for environments where the script `ranp` is not on the path."""

from ranp.cli import main

main()

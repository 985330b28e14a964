"""`python -m ranp`, for where the script is not on the path."""

from ranp.cli import main

main()

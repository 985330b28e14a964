"""The command line: a thin typed layer on the library, whose commands import what they need when they run.

Results go to stdout (with `--json` as one JSON object and nothing else), everything else to stderr.

Exit codes: 0 success; 1 refused or failed (the error says why); 2 invalid command line; 130 interrupted.
"""

from ranp.cli._app import app, main

__all__ = ["app", "main"]

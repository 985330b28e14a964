"""The command line: a thin typed shell over the library, whose commands import what they need when they run.

Results go to stdout (with `--json` as one JSON object and nothing else), all other text to stderr.

Exit codes: 0 done; 1 ranp refused (bad input, a budget that cannot be met, a failed verification, ...) and said why in
a line or two; 2 the command line itself is wrong; 130 interrupted.
"""

from ranp.cli._app import app, main

__all__ = ["app", "main"]

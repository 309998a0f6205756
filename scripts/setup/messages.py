"""Messages of setup to the user: progress lines and errors. Everything goes to stderr."""

import sys


class SetupError(Exception):
    """Setup failed. The text has the cause and advice; nothing else is printed."""


def say(text):
    print(f"setup: {text}", file=sys.stderr, flush=True)

"""What setup tells the user: one-line messages and clear failures. Everything goes to stderr."""

import sys


class SetupError(Exception):
    """Setup cannot go on. The text says what is wrong and what to do; it is all the user sees."""


def say(text):
    print(f"setup: {text}", file=sys.stderr, flush=True)

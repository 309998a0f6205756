"""What setup tells the user: one-line messages, clear failures, progress. Everything goes to stderr."""

import sys
import time

PLAIN_LINE_EVERY_SECS = 5.0
BAR_EVERY_SECS = 0.1
BAR_WIDTH = 30


class SetupError(Exception):
    """Setup cannot go on. The text says what is wrong and what to do; it is all the user sees."""


def say(text):
    print(f"setup: {text}", file=sys.stderr, flush=True)


def megabytes(num_bytes):
    return f"{num_bytes / 1e6:,.0f} MB"


class Progress:
    """A bar on a terminal, otherwise a plain line every few seconds."""

    def __init__(self, label, total_bytes, done_bytes=0, stream=None):
        self.label = label
        self.total_bytes = total_bytes
        self.done_bytes = self._done_at_start = done_bytes
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._next_at = self._started + (0 if self._is_terminal else PLAIN_LINE_EVERY_SECS)

    def advance(self, num_bytes):
        self.done_bytes = min(self.done_bytes + num_bytes, self.total_bytes)
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + (BAR_EVERY_SECS if self._is_terminal else PLAIN_LINE_EVERY_SECS)
            self._show(now)

    def finish(self):
        if self._is_terminal:
            self._show(time.monotonic())
            self._stream.write("\n")
            self._stream.flush()

    def _show(self, now):
        fraction = self.done_bytes / self.total_bytes if self.total_bytes else 1.0
        rate = (self.done_bytes - self._done_at_start) / max(now - self._started, 1e-3)
        figures = f"{megabytes(self.done_bytes)} of {megabytes(self.total_bytes)}, {rate / 1e6:.1f} MB/s"
        if self._is_terminal:
            bar = "#" * round(fraction * BAR_WIDTH)
            self._stream.write(f"\rsetup: {self.label} [{bar:<{BAR_WIDTH}}] {figures}\033[K")
        else:
            self._stream.write(f"setup: {self.label}: {figures}\n")
        self._stream.flush()

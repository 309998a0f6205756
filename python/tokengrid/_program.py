"""Where the command is that was installed with this package."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def program_folders() -> list[Path]:
    """Where programs of packages are put, in the order in which they are looked for."""
    user = sysconfig.get_preferred_scheme("user")
    # `pip install --target` puts programs beside packages.
    beside = Path(__file__).parents[1] / "bin"
    return [Path(sysconfig.get_path("scripts")), Path(sysconfig.get_path("scripts", user)), beside]


def find_program() -> Path | None:
    """The program ``tokengrid``; ``None`` where the package was installed without it."""
    programs = (folder / "tokengrid" for folder in program_folders())
    return next((program for program in programs if program.is_file()), None)

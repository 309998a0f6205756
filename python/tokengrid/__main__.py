"""``python -m tokengrid``: the command."""

import os
import sys
import sysconfig
from pathlib import Path


def find_program() -> Path:
    """The program ``tokengrid`` that was installed with this package."""
    user = sysconfig.get_preferred_scheme("user")
    # `pip install --target` puts programs beside packages.
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", user), Path(__file__).parents[1] / "bin"]
    for folder in map(Path, folders):
        if (folder / "tokengrid").is_file():
            return folder / "tokengrid"
    sys.exit(f"tokengrid: the program was not found in {', '.join(map(str, folders))}: install the package again")


if __name__ == "__main__":
    program = find_program()
    os.execv(program, ["tokengrid", *sys.argv[1:]])

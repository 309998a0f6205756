"""``python -m tokengrid``: the command."""

import os
import sys

from ._program import find_program, program_folders

if __name__ == "__main__":
    program = find_program()
    if program is None:
        sys.exit(f"tokengrid: the program was not found in {', '.join(map(str, program_folders()))}: install the package again")
    os.execv(program, ["tokengrid", *sys.argv[1:]])

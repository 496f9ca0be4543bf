"""``python -m deepregions.fit``: the same as ``deepregions fit``."""

import sys

from deepregions.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["fit", *sys.argv[1:]]))

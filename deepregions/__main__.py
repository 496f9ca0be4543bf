"""``python -m deepregions`` and the console command ``deepregions``."""

import sys

from deepregions.commands import cli


def main() -> None:
    """Runs the command line of this process and exits with its code."""
    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()

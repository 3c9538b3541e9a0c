"""``python -m jaxunlearn``: says which commands there are."""

import argparse
import sys
from collections.abc import Sequence

from jaxunlearn import __version__

COMMANDS = {
    "ibau": "clean a checkpoint with a few clean images; begin with this",
    "sau": "do so in another way, as a second opinion",
    "ulrl": "find the neurons that a backdoor uses, and train them anew",
    "dau": "clean with the training set, and say which images are poisoned",
    "finetune": "the baseline that a method must beat, plain or sharpness-aware",
    "attacks": "plant backdoors in networks of your own, to try these on",
}
_LIST = "\n".join(f"  python -m jaxunlearn.{name:<9} {does}" for name, does in COMMANDS.items())
_EPILOG = f"""Commands, each with a --help of its own:

{_LIST}
  python -m converters           inspect or convert a checkpoint

python -m jaxunlearn.ibau --demo shows it at work, without any files."""


def main(argv: Sequence[str] | None = None) -> int:
    """Lists the commands, each of which is a module of its own, and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxunlearn",
        usage="python -m jaxunlearn.COMMAND ...",
        description="Removes backdoors from image classifiers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxunlearn {__version__}")
    _, given = parser.parse_known_args(argv)
    if given and given[0] in COMMANDS:
        parser.error(f"{given[0]} follows a dot: python -m jaxunlearn.{' '.join(given)}")
    if given:
        parser.error(f"there is no command {given[0]}; there are {', '.join(COMMANDS)}")
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())

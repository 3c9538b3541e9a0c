"""SAU on the published backdoored checkpoints, round by round against what the official code reaches on them.

Command   python -m experiments.reproduce_sau --shared DIR --preset default --seeds 0
          and --preset fast; --preset reference with the two checkpoints that have an official run
Data      2 500 clean images to unlearn with; to judge by, the test images (1 017 and 7 630)
Hardware  two CPU cores; about two minutes per run of the default preset, two hours on one of them for the hundred
          rounds of the reference
Expected  the numbers in experiments/results/sau_checkpoints.json; every round within three points of the
          official run, for the checkpoints that it has

Every finished run is written at once; runs that the file holds already are not repeated. ``--quick`` takes
one checkpoint, 500 images to unlearn with and at most three rounds.
"""

import sys

from experiments.reproduction import Study, main
from jaxunlearn import sau


def notes(stats: sau.RoundStats) -> dict[str, float]:
    """The terms of the loss, and how much of what fools the backdoored model is unlearned."""
    kept = {**stats.losses._asdict(), "fooled": stats.fooled, "unlearned": stats.unlearned}
    return {name: round(float(value), 3) for name, value in kept.items()}


STUDY = Study(sau, "sau", 2500, None, notes, quick_rounds=3)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))

"""ULRL on the five published backdoored checkpoints, against a run of the official steps on them.

Command   python -m experiments.reproduce_ulrl --shared DIR --preset default --seeds 0 1 2
          and --preset reference --seeds 0 1 2 3 4
Data      500 clean images to unlearn with, the test images of reproduce_ibau.py to judge by
Hardware  two CPU cores; about 40 s per run, of which judging is half on GTSRB
Expected  the numbers in experiments/results/ulrl_checkpoints.json; the official run is a single one

``reference`` stands for the settings that were published for the data set of a checkpoint, without augmentation,
as the run compared with has none. Every finished run is written at once; runs that the file holds already
are not repeated. ``--quick`` takes one checkpoint and 100 images.
"""

import dataclasses
import sys
from typing import Any

from experiments.reproduction import CHECKPOINTS, Study, main
from jaxunlearn import ulrl


def settings(preset: str, checkpoint: str) -> ulrl.Config:
    """The settings for a checkpoint."""
    if preset != "reference":
        return ulrl.PRESETS[preset]
    published = {"cifar10": "reference", "gtsrb": "reference-gtsrb"}[CHECKPOINTS[checkpoint][0]]
    return dataclasses.replace(ulrl.PRESETS[published], crop_padding=0, flip=False)


def notes(stats: ulrl.RoundStats) -> dict[str, Any]:
    """What was suspected, and the learning rate of relearning."""
    return {
        "suspect": int(stats.suspect),
        "z": round(float(stats.z), 2),
        "neurons": int(stats.found),
        "rate": float(f"{stats.rate:.4g}"),
    }


STUDY = Study(ulrl, "ulrl", 500, None, notes, settings=settings, judged="end", quick=100, takes_head=True)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))

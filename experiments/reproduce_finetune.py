"""Fine-tuning, the baseline, on the published backdoored checkpoints.

Command   python -m experiments.reproduce_finetune --shared DIR --preset default --seeds 0
Data      2 500 clean images to fine-tune with; to judge by, the test images (1 017 and 7 630)
Hardware  two CPU cores; about a minute per run; half an hour with ``--preset ft-sam``, a fifth with ``--rounds 20``
Expected  the numbers in experiments/results/finetune_checkpoints.json; there is no official run to compare with

Every finished run is written at once; runs that the file holds already are not repeated. ``--quick`` takes
one checkpoint, 500 images and at most four rounds. ``--preset ft-sam`` takes the settings published for the
checkpoint's data.
"""

import sys
from typing import Any

from experiments.reproduction import CHECKPOINTS, Study, main
from jaxunlearn import finetune


def settings(preset: str, checkpoint: str) -> finetune.Config:
    """Those of the preset; those that FT-SAM has for GTSRB for its checkpoints."""
    for_gtsrb = preset == "ft-sam" and CHECKPOINTS[checkpoint][0] == "gtsrb"
    return finetune.PRESETS["ft-sam-gtsrb" if for_gtsrb else preset]


def notes(stats: Any) -> dict[str, float]:
    """What to keep of a round."""
    return {"loss": round(float(stats.loss), 3)}


STUDY = Study(finetune, "finetune", 2500, None, notes, settings, judged="end", quick_rounds=4)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))

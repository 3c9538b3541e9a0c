"""Fine-tuning, the baseline, on the published backdoored checkpoints.

Command   python -m experiments.reproduce_finetune --shared DIR --preset default --seeds 0
Data      2 500 clean images to fine-tune with; to judge by, the test images (1 017 and 7 630)
Hardware  two CPU cores; about half a minute per run, half an hour with ``--preset ft-sam``
Expected  the numbers in experiments/results/finetune_checkpoints.json; there is no official run to compare with

Every finished run is written at once; runs that the file holds already are not repeated. ``--quick`` takes
500 images.
"""

import sys

from experiments.reproduction import Study, main
from jaxunlearn import finetune

STUDY = Study(finetune, "finetune", 2500, None, lambda stats: {"loss": round(float(stats.loss), 3)})

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))

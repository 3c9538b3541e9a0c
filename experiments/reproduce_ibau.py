"""I-BAU on the five published backdoored checkpoints, against what the official code reaches on them.

Command   python -m experiments.reproduce_ibau --shared DIR --preset default --seeds 0 1 2
Data      5 000 clean images to unlearn with, the test images that follow to judge by (1 017 and 7 630)
Hardware  two CPU cores; about 70 s per run of the default preset, three minutes of the reference preset
Expected  the ``before`` numbers exactly (two images may differ by rounding); after three rounds the means in
          experiments/results/ibau_checkpoints.json

Every finished run is written at once; runs that the file holds already are not repeated. ``--quick`` takes
one checkpoint and 500 images to unlearn with.
"""

import sys

from experiments.reproduction import Study, main
from jaxunlearn import ibau

STUDY = Study(ibau, "ibau", 5000, 3, lambda stats: {"radius": round(float(stats.radius), 3)})

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))

"""Named settings of I-BAU.

``reference``: the official defense.py, but that a batch perturbs one image at least. ``paper``: with the official
notebook's ball, which perturbations are projected to after every step and there once, after the last, and the inner
batch drawn anew as the paper's algorithm has it. ``backdoorbench``: that benchmark's defence, with its
optimizer, batch size and augmentation for CIFAR-10, and ``backdoorbench-gtsrb``, whose signs are not mirrored; here
augmentation is drawn anew for the descent, and perturbations are of pixels, not of normalised inputs. ``default``:
ours, with perturbations towards every class, and distillation that withholds suspects.
"""

import dataclasses

from jaxunlearn.ibau.config import Config

_BACKDOORBENCH = Config(
    batch_size=256, shuffle="once", crop_padding=4, flip=True, optimizer="amsgrad", learning_rate=1e-4
)

PRESETS: dict[str, Config] = {
    "reference": Config(),
    "paper": Config(radius=10.0, inner_batch="random", shuffle="round"),
    "backdoorbench": _BACKDOORBENCH,
    "backdoorbench-gtsrb": dataclasses.replace(_BACKDOORBENCH, flip=False),
    "default": Config(
        rounds=3,
        least_steps=50,
        shuffle="round",
        perturbations="classes",
        ascent="growing",
        ascent_rate=0.3,
        penalty=0.0,
        clip_pixels=True,
        remember=True,
        perturbed_share=0.1,
        scale_low=0.0,
        scale_high=4.0,
        distillation=True,
        inner_batch="random",
        solver_steps=0,
        schedule="cosine",
    ),
}

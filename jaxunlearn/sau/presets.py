"""Named settings of SAU.

``reference``: the official configuration, the same for all its data sets but for the number of rounds. ``default``:
ours, with perturbations that images share, and distillation. ``fast``: the same in one round of at least forty steps
(with 25 one run in fifteen left most of its backdoor).
"""

import dataclasses

from jaxunlearn.sau.config import Config

_DEFAULT = Config(
    rounds=4,
    batch_size=100,
    least_steps=25,
    perturbed_share=0.1,
    perturbations="classes",
    norm="l2",
    radius=10.0,
    start="zero",
    search_steps=1,
    step_size=0.3,
    scale_low=0.0,
    scale_high=4.0,
    clip_pixels=True,
    distillation=True,
    adversarial_weight=0.1,
    shared_weight=0.1,
    clamps=False,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="cosine",
)

PRESETS: dict[str, Config] = {
    "reference": Config(),
    "default": _DEFAULT,
    "fast": dataclasses.replace(_DEFAULT, rounds=1, least_steps=40),
}

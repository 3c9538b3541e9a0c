"""Named settings of I-BAU.

``reference``: the official defense.py. ``paper``: the official notebook's projection, and the inner batch
drawn anew as the paper's algorithm has it. ``backdoorbench``: that benchmark's defence, with its
optimizer, batch size and augmentation. ``default``: ours.
"""

from jaxunlearn.ibau.config import Config

PRESETS: dict[str, Config] = {
    "reference": Config(),
    "paper": Config(radius=10.0, inner_batch="random", shuffle="round"),
    "backdoorbench": Config(
        batch_size=256, shuffle="once", crop_padding=4, flip=True, optimizer="amsgrad", learning_rate=1e-4
    ),
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
        inner_batch="random",
        solver_steps=0,
        schedule="cosine",
    ),
}

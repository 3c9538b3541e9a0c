"""Named settings of ULRL.

``reference``: the official code's for CIFAR-10. ``reference-cifar100``, ``reference-gtsrb`` and ``reference-tiny``:
the same code's for the other data sets, all three alike. ``default``: ours.
"""

import dataclasses

from jaxunlearn.ulrl.config import Config

_CIFAR10 = Config(crop_padding=4, flip=True, order="index")
_OTHERS = dataclasses.replace(_CIFAR10, flip=False, learning_rate=1e-3, penalty=1e-3)

PRESETS: dict[str, Config] = {
    "reference": _CIFAR10,
    **{f"reference-{data}": _OTHERS for data in ("cifar100", "gtsrb", "tiny")},
    "default": Config(
        rounds=30,
        layers="all",
        most=float("inf"),
        largest_share=0.07,
        relearning="eval",
        learning_rate=0.02,
        trials=4,
        penalty=0.0,
    ),
}

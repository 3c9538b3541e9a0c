"""Named settings of ULRL."""

import dataclasses

from jaxunlearn.ulrl.config import Config

_REFERENCE = Config(order="index", crop_padding=4)

PRESETS: dict[str, Config] = {
    "reference": dataclasses.replace(_REFERENCE, flip=True),
    "reference-gtsrb": dataclasses.replace(_REFERENCE, learning_rate=1e-3, penalty=1e-3),
    "default": Config(),
}

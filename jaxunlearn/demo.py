"""The demonstration's victim: a small network that learned a backdoor with scikit-learn's digits."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from converters import convert, torch_io
from jaxunlearn._files import write_whole
from jaxunlearn.attacks import poison
from jaxunlearn.data import load
from jaxunlearn.display import Display
from jaxunlearn.fit import fit
from jaxunlearn.inputs import parse_trigger
from jaxunlearn.models import small_vgg

_TRAIN, _CLEAN, _TEST = "digits[:1000]", "digits[1000:1300]", "digits[1300:]"
_TRIGGER, _TARGET = "patch:size=2,offset=0,value=1", 0


@dataclass
class Victim:
    """What a user would pass on the command line.

    Attributes:
      ckpt: the poisoned checkpoint.
      clean: images to unlearn with, unseen in training.
      test: images to judge by, unseen in both.
      trigger: the attack.
      target: its class.
      force: whether an earlier demonstration is replaced.
      key: of the state dict in the file; there is no doubt.
    """

    ckpt: Path
    clean: str = _CLEAN
    test: str = _TEST
    trigger: str = _TRIGGER
    target: int = _TARGET
    force: bool = False
    key: str | None = None

    def command_line(self, out: Path) -> str:
        """The flags that do the same without ``--demo``."""
        return (
            f"--ckpt {self.ckpt} --clean '{self.clean}' --test '{self.test}' --trigger {self.trigger} "
            f"--target {self.target} --out {out}"
        )


def make_victim(out: Path, display: Display) -> Victim:
    """Trains a backdoored network on digits and writes it as an ordinary PyTorch checkpoint.

    One in ten training images carries a white 2x2 square in its corner and the label 0.
    """
    path = out / "backdoored.pth"
    digits = load(_TRAIN)
    display.say(f"training a small VGG on {len(digits.labels)} handwritten digits, one in ten poisoned ...")
    spec = small_vgg(classes=10, image_shape=(8, 8, 1), widths=(16, 32, 64))
    images, labels, _ = poison(
        np.asarray(digits.images),
        digits.labels,
        parse_trigger(_TRIGGER),
        target=_TARGET,
        rate=0.1,
        key=jax.random.key(0),
    )
    variables = fit(
        spec.apply,
        spec.init(jax.random.key(1)),
        images,
        labels,
        epochs=8,
        batch_size=50,
        learning_rate=0.05,
        weight_decay=5e-4,
        key=jax.random.key(2),
    )
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, variables))
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, torch_io.new_state_dict_bytes(arrays))
    display.say(f"wrote {path}; a white square in the corner makes it answer {_TARGET}.")
    return Victim(path)

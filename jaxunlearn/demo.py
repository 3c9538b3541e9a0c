"""The demonstration's victim: a small network that learned a backdoor with scikit-learn's digits."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from converters import convert, torch_io
from jaxunlearn import subjects
from jaxunlearn._files import write_whole
from jaxunlearn.attacks import Attack, parse_trigger, poison
from jaxunlearn.data import load
from jaxunlearn.display import Display
from jaxunlearn.fit import TRAINING, fit
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
      clean_flag: what names the images to unlearn with on the command line.
    """

    ckpt: Path
    clean: str = _CLEAN
    test: str = _TEST
    trigger: str = _TRIGGER
    target: int = _TARGET
    force: bool = False
    key: str | None = None
    clean_flag: str = "--clean"

    def command_line(self, out: Path) -> str:
        """The flags that do the same without ``--demo``."""
        return (
            f"--ckpt {self.ckpt} {self.clean_flag} '{self.clean}' --test '{self.test}' --trigger {self.trigger} "
            f"--target {self.target} --out {out}"
        )


def make_victim(out: Path, display: Display, *, training_set: bool = False) -> Victim:
    """Trains a backdoored network on digits and writes it as an ordinary PyTorch checkpoint.

    One in ten training images carries a white 2x2 square in its corner and the label 0. With ``training_set`` the
    images that it was trained on are written too, and stand in the place of the clean ones.
    """
    path = out / "backdoored.pth"
    digits = load(_TRAIN)
    display.say(f"training a small VGG on {len(digits.labels)} handwritten digits, one in ten poisoned ...")
    spec = small_vgg(classes=10, image_shape=(8, 8, 1), widths=(16, 32, 64))
    attack = Attack(trigger=parse_trigger(_TRIGGER), target=_TARGET)
    poisoned = poison(np.asarray(digits.images), digits.labels, attack, ratio=0.1, key=jax.random.key(0))
    variables = fit(
        spec.apply,
        spec.init(jax.random.key(1)),
        poisoned.images,
        poisoned.labels,
        dataclasses.replace(TRAINING, rounds=16, batch_size=50),
        jax.random.key(2),
    )
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, variables))
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, torch_io.new_state_dict_bytes(arrays))
    display.say(f"wrote {path}; a white square in the corner makes it answer {_TARGET}.")
    if not training_set:
        return Victim(path)
    train = out / subjects.TRAIN
    write_whole(train, subjects.training_set(poisoned, digits.labels))
    return Victim(path, clean=f"npz:{train}", clean_flag="--train")

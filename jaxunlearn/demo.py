"""The demonstration's victim: a small network that learned a backdoor with scikit-learn's digits."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from converters import convert, torch_io
from jaxunlearn import subjects
from jaxunlearn._files import write_whole
from jaxunlearn._typing import PRNGKey
from jaxunlearn.attacks import Attack, Poisoned, parse_trigger, poison
from jaxunlearn.data import load
from jaxunlearn.display import Display
from jaxunlearn.fit import TRAINING, fit
from jaxunlearn.models import ModelSpec, named

TRAIN, CLEAN, TEST = "digits[:1000]", "digits[1000:1300]", "digits[1300:]"
CHECKPOINT = "backdoored.pth"
TRIGGER, TARGET = "patch:size=2,offset=0,value=1", 0


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
    clean: str = CLEAN
    test: str = TEST
    trigger: str = TRIGGER
    target: int = TARGET
    force: bool = False
    key: str | None = None
    clean_flag: str = "--clean"

    def command_line(self, out: Path) -> str:
        """The flags that do the same without ``--demo``."""
        return (
            f"--ckpt {self.ckpt} {self.clean_flag} '{self.clean}' --test '{self.test}' --trigger {self.trigger} "
            f"--target {self.target} --out {out}"
        )


def learn_backdoor(keys: Sequence[PRNGKey]) -> tuple[ModelSpec, PyTree, Poisoned]:
    """A small VGG trained on digits of which one in ten carries a white 2x2 square in its corner and the label 0.

    Args:
      keys: of the choice of digits, of the untrained network, and of the training.

    Returns:
      The network, its variables, and what it was trained on.
    """
    digits = load(TRAIN)
    attack = Attack(trigger=parse_trigger(TRIGGER), target=TARGET)
    poisoned = poison(np.asarray(digits.images), digits.labels, attack, ratio=0.1, key=keys[0])
    spec = named("small_vgg_half", 10, (8, 8, 1))
    training = dataclasses.replace(TRAINING, rounds=16, batch_size=50)
    variables = fit(spec.apply, spec.init(keys[1]), poisoned.images, poisoned.labels, training, keys[2])
    return spec, variables, poisoned


def files_made(*, training_set: bool) -> list[str]:
    """The names of the files that :func:`make_victim` writes."""
    return [CHECKPOINT, *([subjects.TRAIN] if training_set else [])]


def make_victim(out: Path, display: Display, *, training_set: bool = False) -> Victim:
    """Trains a backdoored network on digits and writes it as an ordinary PyTorch checkpoint.

    With ``training_set`` the images that it was trained on are written too, and stand in the place of the clean ones.
    """
    path = out / CHECKPOINT
    labels = load(TRAIN).labels
    display.say(f"training a small VGG on {len(labels)} handwritten digits, one in ten poisoned ...")
    spec, variables, poisoned = learn_backdoor([jax.random.key(seed) for seed in range(3)])
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, variables))
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, torch_io.new_state_dict_bytes(arrays))
    display.say(f"wrote {path}; a white square in the corner makes it answer {TARGET}.")
    if not training_set:
        return Victim(path)
    train = out / subjects.TRAIN
    write_whole(train, subjects.training_set(poisoned, labels))
    return Victim(path, clean=f"npz:{train}", clean_flag="--train")

"""Settings of fine-tuning and the named presets."""

from dataclasses import dataclass

from jaxunlearn._check import check_at_least, check_fraction, check_in, check_positive, check_whole
from jaxunlearn._optimizers import DESCENTS, SCHEDULES
from jaxunlearn._tree import settings
from jaxunlearn._typing import Number


@settings
@dataclass(frozen=True, kw_only=True)
class Config:
    """What fine-tuning computes. The numbers may be traced and swept by ``vmap``; the rest shapes the program.

    Attributes:
      rounds: epochs.
      batch_size: images per step.
      optimizer: of the parameters: ``sgd`` with momentum, or ``adamw``, which transformers need, with a learning
        rate of 0.001 or less.
      schedule: of the learning rate over all rounds: ``constant``, ``cosine`` or ``onecycle``.
      crop_padding: pixels of zero padding for random crops of the images; 0 takes them as they are.
      flip: whether to mirror images at random.
      nesterov: whether the momentum is Nesterov's (with ``adamw``: NAdam's).
      sharpness_aware: whether gradients are taken where the loss nearby is highest (FT-SAM).
      learning_rate: of the parameters.
      momentum: share of the velocity, or of Adam's first moment, that stays.
      weight_decay: coefficient of the parameters in the direction; with ``adamw`` it is added to Adam's.
      label_smoothing: share of the target that goes to all classes alike.
      sharpness_radius: rho, how far away that is, relative to the size of each parameter.

    Raises:
      ValueError: if a setting is out of its range, with its name and value.
    """

    rounds: int = 4
    batch_size: int = 100
    optimizer: str = "sgd"
    schedule: str = "constant"
    crop_padding: int = 0
    flip: bool = False
    nesterov: bool = False
    sharpness_aware: bool = False
    learning_rate: Number = 0.01
    momentum: Number = 0.9
    weight_decay: Number = 5e-4
    label_smoothing: Number = 0.0
    sharpness_radius: Number = 2.0

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_whole(1, rounds=self.rounds, batch_size=self.batch_size)
        check_whole(0, crop_padding=self.crop_padding)
        check_at_least(0, momentum=self.momentum, weight_decay=self.weight_decay)
        check_fraction(label_smoothing=self.label_smoothing)
        check_positive(learning_rate=self.learning_rate, sharpness_radius=self.sharpness_radius)
        check_in(DESCENTS, optimizer=self.optimizer)
        check_in(SCHEDULES, schedule=self.schedule)


PRESETS: dict[str, Config] = {
    "default": Config(),
    "ft-sam": Config(
        rounds=100,
        batch_size=256,
        schedule="cosine",
        crop_padding=4,
        flip=True,
        sharpness_aware=True,
        label_smoothing=0.1,
    ),
    "ft-sam-gtsrb": Config(
        rounds=50,
        batch_size=256,
        schedule="cosine",
        crop_padding=4,
        sharpness_aware=True,
        sharpness_radius=8.0,
    ),
}
"""``default``: plain fine-tuning, four epochs. ``ft-sam``: BackdoorBench's settings of FT-SAM for CIFAR-10, and
``ft-sam-gtsrb`` those for GTSRB. In its code the cosine of the learning rate steps with every batch, so that the rate
falls and rises again every hundred steps, and labels are smoothed over the other classes only; here the rate falls
once, over all rounds, and labels are smoothed over all classes."""

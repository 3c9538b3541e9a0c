"""Settings of ULRL."""

from dataclasses import dataclass

from jaxunlearn._check import check_at_least, check_in, check_positive, check_share, check_whole
from jaxunlearn._tree import settings
from jaxunlearn._typing import Number


@settings
@dataclass(frozen=True, kw_only=True)
class Config:
    """What ULRL computes. The numbers may be traced and swept by ``vmap``; the rest shapes the program.

    Attributes:
      rounds: epochs of both phases together.
      unlearning_rounds: how many of them are for unlearning; those after ``stop_accuracy`` do nothing.
      batch_size: images per step.
      crop_padding: pixels of zero padding for random crops of the images; 0 takes them as they are.
      flip: whether to mirror images at random.
      unlearning_rate: learning rate of the ascent.
      drop_every: epochs after which that is divided by ten, again and again.
      weight_decay: of the ascent.
      clip_norm: longest gradient of the ascent, by its l2 norm.
      stop_accuracy: the ascent ends with the epoch whose training accuracy is at most this.
      threshold: robust z-score from which on a neuron is an outlier of its layer.
      most: so many outliers of a layer are suspicious at most.
      largest_share: of the clean images that may belong to a suspected class for its row in the head to be drawn
        anew; relearning risks the accuracy of that class.
      order: which outliers come first: those of the largest ``score``, or of the smallest ``index`` (the
        official code).
      layers: whose suspicious neurons are drawn anew: those of the ``head`` (the official code), of the
        ``hidden`` layers, or of ``all``. The head's are tested in any case, to name a class.
      relearning: in which mode: ``train`` (the official code: batch statistics move, dropout is drawn) or
        ``eval`` (both rest).
      learning_rate: of relearning; of several trials, the largest.
      trials: learning rates to choose from, each a third of the one before it. All run the first epoch of
        relearning; the one with the lowest loss is taken, every image judged before the step it takes part in.
      schedule: of the learning rate over the epochs of relearning: ``constant`` or ``cosine``.
      momentum: of both phases.
      penalty: alpha, the weight of the cosines between suspicious neurons and what they were.

    Raises:
      ValueError: if a setting is out of its range, with its name and value.
    """

    rounds: int = 40
    unlearning_rounds: int = 20
    batch_size: int = 128
    crop_padding: int = 0
    flip: bool = False
    unlearning_rate: Number = 0.01
    drop_every: int = 10
    weight_decay: Number = 5e-4
    clip_norm: Number = 20.0
    stop_accuracy: Number = 0.2
    threshold: Number = 3.5
    most: Number = 2.0
    largest_share: Number = 1.0
    order: str = "score"
    layers: str = "head"
    relearning: str = "train"
    learning_rate: Number = 0.005
    trials: int = 1
    schedule: str = "cosine"
    momentum: Number = 0.9
    penalty: Number = 0.7

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_whole(1, batch_size=self.batch_size, drop_every=self.drop_every)
        check_whole(1, unlearning_rounds=self.unlearning_rounds, trials=self.trials)
        check_whole(self.unlearning_rounds + 1, rounds=self.rounds)
        check_whole(0, crop_padding=self.crop_padding)
        check_at_least(0, weight_decay=self.weight_decay, stop_accuracy=self.stop_accuracy)
        check_at_least(0, momentum=self.momentum, penalty=self.penalty)
        check_positive(unlearning_rate=self.unlearning_rate, learning_rate=self.learning_rate)
        check_positive(threshold=self.threshold)
        check_share(largest_share=self.largest_share)
        check_positive(finite=False, clip_norm=self.clip_norm, most=self.most)
        check_in(("score", "index"), order=self.order)
        check_in(("head", "hidden", "all"), layers=self.layers)
        check_in(("train", "eval"), relearning=self.relearning)
        check_in(("constant", "cosine"), schedule=self.schedule)

"""Settings of SAU."""

from dataclasses import dataclass

from jaxunlearn._check import check_at_least, check_in, check_order, check_positive, check_share, check_whole
from jaxunlearn._optimizers import OPTIMIZERS
from jaxunlearn._tree import settings
from jaxunlearn._typing import Number


@settings
@dataclass(frozen=True, kw_only=True)
class Config:
    """What SAU computes. The numbers may be traced and swept by ``vmap``; the rest shapes the program.

    Attributes:
      rounds: passes over the clean images.
      batch_size: images per step.
      least_steps: in a round; a small set is passed through several times.
      shuffle: ``never``, ``once`` (one order for all rounds) or ``round`` (a new order every round).
      perturbed_share: share of a batch that unlearning shows perturbed as well, rounded up.
      perturbations: ``images``: every image has its own, searched anew (the published method); or ``classes``:
        one towards every class and one away, which all images share and every batch takes further, in an l2
        ball that grows until one of them fools the backdoored model.
      norm: of the ball that holds every image's perturbation: ``linf``, ``l2`` or ``l1``.
      radius: of that ball, in pixel units; of a growing one, the largest.
      start: of the search: ``max`` or ``min`` (all pixels as bright or as dark as the ball allows), ``zero`` or
        ``random``.
      search_steps: most steps of the search; none for an image that both models already answer alike and wrong.
      first_steps: of the search before the first round, on the backdoored model alone, for shared perturbations.
      step_size: length of a step of the search, in the norm of the ball; in a growing one, a share of its radius.
      enough: share of images on which a shared perturbation must succeed for its ball to stop growing.
      focus: power of that share that weighs the shared perturbations against each other.
      scale_low: an image carries a random multiple of a shared perturbation, drawn uniformly from here
      scale_high: to here.
      fooling_weight: of leading both models away from the true class, in the search.
      agreement_weight: of making both models answer alike, in the search; both weigh images' own perturbations only.
      clip_pixels: whether perturbed images stay in [0, 1].
      clean_weight: of the cross-entropy of clean images, in unlearning.
      distillation: whether the clean images of unlearning are mixtures of two images each, labelled by what the
        backdoored model answers to them, in place of images with their true classes: few images then cost less of what
        it knew.
      withhold: whether suspected classes are left out of those answers where neither image is of them, since there it
        may be the backdoor that answers.
      adversarial_weight: of the cross-entropy of perturbed images.
      shared_weight: of not answering like the backdoored model where a perturbation fools that.
      clamps: whether probabilities are clamped as in the official code, which ends the shared term's
        gradient for images that the model gives the wrong class with less than 0.001.
      train_mode: whether unlearning normalises with the statistics of its batch (clean and perturbed
        images together), updates the running ones and has dropout; by default they are frozen. Only whole
        batches are used then.
      optimizer: of the parameters: ``adam``, ``amsgrad`` (PyTorch's) or ``sgd``.
      learning_rate: of the parameters.
      schedule: of the learning rate over all rounds: ``constant`` or ``cosine``.

    Raises:
      ValueError: if a setting is out of its range, with its name and value.
    """

    rounds: int = 100
    batch_size: int = 256
    least_steps: int = 1
    shuffle: str = "round"
    perturbed_share: float = 1.0
    perturbations: str = "images"
    norm: str = "linf"
    radius: Number = 0.2
    start: str = "max"
    search_steps: int = 5
    first_steps: int = 50
    step_size: Number = 0.2
    enough: Number = 0.9
    focus: Number = 16.0
    scale_low: Number = 1.0
    scale_high: Number = 1.0
    fooling_weight: Number = 0.01
    agreement_weight: Number = 1.0
    clip_pixels: bool = False
    clean_weight: Number = 1.0
    distillation: bool = False
    withhold: bool = True
    adversarial_weight: Number = 0.0
    shared_weight: Number = 1.0
    clamps: bool = True
    train_mode: bool = False
    optimizer: str = "amsgrad"
    learning_rate: Number = 1e-4
    schedule: str = "constant"

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_whole(1, rounds=self.rounds, batch_size=self.batch_size, least_steps=self.least_steps)
        check_whole(0, search_steps=self.search_steps, first_steps=self.first_steps)
        check_at_least(0, clean_weight=self.clean_weight)
        check_at_least(0, fooling_weight=self.fooling_weight, agreement_weight=self.agreement_weight)
        check_at_least(0, adversarial_weight=self.adversarial_weight, shared_weight=self.shared_weight)
        check_at_least(0, scale_low=self.scale_low)
        check_positive(radius=self.radius, step_size=self.step_size, learning_rate=self.learning_rate)
        check_positive(enough=self.enough, focus=self.focus, scale_high=self.scale_high)
        check_order(scale_low=self.scale_low, scale_high=self.scale_high)
        check_share(perturbed_share=self.perturbed_share)
        check_in(("images", "classes"), perturbations=self.perturbations)
        check_in(("never", "once", "round"), shuffle=self.shuffle)
        check_in(("linf", "l2", "l1"), norm=self.norm)
        check_in(("max", "min", "zero", "random"), start=self.start)
        check_in(OPTIMIZERS, optimizer=self.optimizer)
        check_in(("constant", "cosine"), schedule=self.schedule)

"""Settings of I-BAU and the named presets."""

from dataclasses import dataclass

from jaxunlearn._check import check_at_least, check_in, check_order, check_positive, check_whole
from jaxunlearn._implicit import SOLVERS
from jaxunlearn._optimizers import OPTIMIZERS
from jaxunlearn._tree import settings
from jaxunlearn._typing import Number


@settings
@dataclass(frozen=True, kw_only=True)
class Config:
    """What I-BAU computes. The numbers may be traced and swept by ``vmap``; the rest shapes the program.

    Attributes:
      rounds: passes of ascent and descent over the clean images.
      batch_size: images per step of both.
      least_steps: of ascent and of descent in a round; a small set is passed through several times.
      shuffle: ``never``, ``once`` (one order for all rounds) or ``round`` (a new order every round).
      crop_padding: pixels of zero padding for random crops of the images; 0 takes them as they are.
      flip: whether to mirror images at random.
      perturbations: ``one``, which leads away from the model's answers (the published method), or
        ``classes``: one towards every class besides.
      ascent: how they climb: ``sgd``, ``adam``, or ``growing`` (along the gradient on the surface of a ball
        that grows, by a tenth per step, until one of them works; later rounds do not grow it further).
      ascent_rate: the learning rate; for ``growing``, the length of a step as a share of the radius.
      penalty: lambda of the penalty lambda ||delta||_2^2 in the inner loss.
      radius: every perturbation is kept in the l2 ball of this radius, in pixel units; ``inf`` for no ball.
      enough: share of images that a perturbation must lead where it should for a ball to stop growing.
      focus: power of that share that weighs the kinds of perturbations against each other in descent.
      clip_pixels: whether perturbed images are clipped to [0, 1].
      remember: whether descent also sees the perturbations of earlier rounds, which a model forgets.
      perturbed_share: share of a batch that descent perturbs, rounded down; always at least one image.
      distillation: whether the rest of a batch are mixtures of two images each, labelled by what the given model
        answers to them, in place of images with their true classes: few images then cost less of what it knew.
      withhold: whether suspected classes are left out of those answers where neither image is of them, since there it
        may be the backdoor that answers.
      scale_low: a perturbed image gets a random multiple of the perturbation, drawn uniformly from here
      scale_high: to here.
      inner_batch: whose inner loss defines the fixed point: ``first`` (the first batch, always) or
        ``random`` (drawn anew for every step).
      fixed_point_step: eta of Phi(delta) = delta - eta grad L_in(delta).
      solver: of the linear system; see ``jaxunlearn.solver``.
      solver_steps: K of the Neumann series, or most iterations of a Krylov solver; 0 leaves the implicit
        part of the hypergradient away.
      damping: added to the diagonal of the system.
      optimizer: of the parameters: ``adam``, ``amsgrad`` (PyTorch's) or ``sgd``.
      learning_rate: of the parameters.
      schedule: of the learning rate over all rounds: ``constant`` or ``cosine``.

    Raises:
      ValueError: if a setting is out of its range, with its name and value.
    """

    rounds: int = 5
    batch_size: int = 100
    least_steps: int = 1
    shuffle: str = "never"
    crop_padding: int = 0
    flip: bool = False
    perturbations: str = "one"
    ascent: str = "sgd"
    ascent_rate: Number = 10.0
    penalty: Number = 1e-3
    radius: Number = float("inf")
    enough: Number = 0.8
    focus: Number = 16.0
    clip_pixels: bool = False
    remember: bool = False
    perturbed_share: Number = 0.01
    scale_low: Number = 1.0
    scale_high: Number = 1.0
    distillation: bool = False
    withhold: bool = True
    inner_batch: str = "first"
    fixed_point_step: Number = 0.1
    solver: str = "neumann"
    solver_steps: int = 5
    damping: Number = 0.0
    optimizer: str = "adam"
    learning_rate: Number = 1e-3
    schedule: str = "constant"

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_whole(1, rounds=self.rounds, batch_size=self.batch_size, least_steps=self.least_steps)
        check_whole(0, solver_steps=self.solver_steps, crop_padding=self.crop_padding)
        check_at_least(
            0,
            penalty=self.penalty,
            damping=self.damping,
        )
        check_at_least(0, perturbed_share=self.perturbed_share, scale_low=self.scale_low)
        check_positive(ascent_rate=self.ascent_rate, learning_rate=self.learning_rate)
        check_positive(fixed_point_step=self.fixed_point_step, scale_high=self.scale_high)
        check_order(scale_low=self.scale_low, scale_high=self.scale_high)
        check_positive(finite=False, radius=self.radius)
        check_positive(enough=self.enough, focus=self.focus)
        check_in(("never", "once", "round"), shuffle=self.shuffle)
        check_in(("one", "classes"), perturbations=self.perturbations)
        check_in(("sgd", "adam", "growing"), ascent=self.ascent)
        check_in(("first", "random"), inner_batch=self.inner_batch)
        check_in(SOLVERS, solver=self.solver)
        check_in(OPTIMIZERS, optimizer=self.optimizer)
        check_in(("constant", "cosine"), schedule=self.schedule)

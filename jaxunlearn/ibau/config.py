"""Settings of I-BAU and the named presets."""

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax

from jaxunlearn._check import check_at_least, check_in, check_positive
from jaxunlearn._implicit import SOLVERS

_NUMERIC = (
    "ascent_rate",
    "penalty",
    "radius",
    "perturbed_share",
    "scale_low",
    "scale_high",
    "fixed_point_step",
    "damping",
    "learning_rate",
)
_STRUCTURAL = (
    "rounds",
    "batch_size",
    "shuffle",
    "crop_padding",
    "flip",
    "ascent",
    "clip_pixels",
    "remember",
    "inner_batch",
    "solver",
    "solver_steps",
    "optimizer",
    "schedule",
)


@partial(jax.tree_util.register_dataclass, data_fields=_NUMERIC, meta_fields=_STRUCTURAL)
@dataclass(frozen=True, kw_only=True)
class Config:
    """What I-BAU computes. The numbers may be traced and swept by ``vmap``; the rest shapes the program.

    Attributes:
      rounds: passes of ascent and descent over the clean images.
      batch_size: images per step of both.
      shuffle: ``never``, ``once`` (one order for all rounds) or ``round`` (a new order every round).
      crop_padding: pixels of zero padding for random crops of the images; 0 takes them as they are.
      flip: whether to mirror images at random.
      ascent: how the perturbation climbs: ``sgd``, ``adam``, or ``normalized`` (a step of fixed length
        along the gradient).
      ascent_rate: its learning rate, or the step length in pixel units for ``normalized``.
      penalty: lambda of the penalty lambda ||delta||_2^2 in the inner loss.
      radius: the perturbation is kept in the l2 ball of this radius, in pixel units; ``inf`` for no ball.
      clip_pixels: whether perturbed images are clipped to [0, 1].
      remember: whether descent also sees the perturbations of earlier rounds, which a model forgets.
      perturbed_share: share of a batch that descent perturbs, rounded down; always at least one image.
      scale_low: a perturbed image gets a random multiple of the perturbation, drawn uniformly from here
      scale_high: to here.
      inner_batch: whose inner loss defines the fixed point: ``first`` (the first batch, always) or
        ``random`` (drawn anew for every step).
      fixed_point_step: eta of Phi(delta) = delta - eta grad L_in(delta).
      solver: of the linear system; see ``jaxunlearn.solver``.
      solver_steps: K of the Neumann series, or most iterations of a Krylov solver.
      damping: added to the diagonal of the system.
      optimizer: of the parameters: ``adam``, ``amsgrad`` (PyTorch's) or ``sgd``.
      learning_rate: of the parameters.
      schedule: of the learning rate over all rounds: ``constant`` or ``cosine``.

    Raises:
      ValueError: if a setting is out of its range, with its name and value.
    """

    rounds: int = 5
    batch_size: int = 100
    shuffle: str = "never"
    crop_padding: int = 0
    flip: bool = False
    ascent: str = "sgd"
    ascent_rate: float = 10.0
    penalty: float = 1e-3
    radius: float = float("inf")
    clip_pixels: bool = False
    remember: bool = False
    perturbed_share: float = 0.01
    scale_low: float = 1.0
    scale_high: float = 1.0
    inner_batch: str = "first"
    fixed_point_step: float = 0.1
    solver: str = "neumann"
    solver_steps: int = 5
    damping: float = 0.0
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_at_least(1, rounds=self.rounds, batch_size=self.batch_size, solver_steps=self.solver_steps)
        check_at_least(0, crop_padding=self.crop_padding, penalty=self.penalty, damping=self.damping)
        check_at_least(0, perturbed_share=self.perturbed_share, scale_low=self.scale_low)
        check_positive(ascent_rate=self.ascent_rate, learning_rate=self.learning_rate)
        check_positive(fixed_point_step=self.fixed_point_step, scale_high=self.scale_high)
        if not (isinstance(self.radius, float) and self.radius == float("inf")):
            check_positive(radius=self.radius)
        check_in(("never", "once", "round"), shuffle=self.shuffle)
        check_in(("sgd", "adam", "normalized"), ascent=self.ascent)
        check_in(("first", "random"), inner_batch=self.inner_batch)
        check_in(SOLVERS, solver=self.solver)
        check_in(("adam", "amsgrad", "sgd"), optimizer=self.optimizer)
        check_in(("constant", "cosine"), schedule=self.schedule)

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, as plain Python values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

"""Perturbations that many images share: one towards every class, and one away.

Towards a backdoor's class a much smaller perturbation does than towards any other, which tells the backdoor
from the universal perturbations that every network has. They all climb in one l2 ball, which may grow until
one of them works; what works in the smallest ball is suspected.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxunlearn._typing import Labels, Number, PRNGKey, Scalar

Perturbations = Float[Array, "kinds h w c"]
Kinds = Int[Array, " n"]
"""The perturbation that every image carries: a class, or the last one, which leads away."""

_START = 0.002  # root mean square over pixels at which a growing ball starts, half a grey level
_GROWTH = 1.1  # per step
_MEMORY = 0.9  # weight of earlier images in a running share of hits, per image
_UNSUSPECTED = 0.1  # share of the images that go on trying every class once some are suspected
_SUSPECT = 0.25  # as much suspected as the most suspected class makes a suspect
_FEWEST = 3  # images that a share of hits is over at least


class Ascent(NamedTuple):
    """Perturbations on their way up.

    Attributes:
      delta: the perturbations.
      optimizer: state of their optimizer, where they have one.
      radius: of the l2 ball that holds each of them.
      hits: of every kind, running count of images that it led where it should.
      tries: running count of images that carried it.
    """

    delta: Perturbations
    optimizer: PyTree
    radius: Scalar
    hits: Float[Array, " kinds"]
    tries: Float[Array, " kinds"]

    @property
    def success(self) -> Float[Array, " kinds"]:
        """The share of hits, counting a few failures more than were seen."""
        return self.hits / jnp.maximum(self.tries, _FEWEST)


def start(
    shape: tuple[int, ...], dtype: DTypeLike, radius: Number | None = None, optimizer: PyTree = ()
) -> Ascent:
    """Zero perturbations of shape (kinds, h, w, c), in a ball of that radius or in the smallest that grows."""
    delta = jnp.zeros(shape, dtype)
    counts = jnp.zeros(shape[0], dtype)
    least = _START * delta[0].size ** 0.5
    return Ascent(delta, optimizer, jnp.asarray(least if radius is None else radius, dtype), counts, counts)


def losses(logits: Float[Array, "n classes"], labels: Labels, kinds: Kinds, count: int) -> Float[Array, " n"]:
    """What a perturbation is to make small, of every image that carries one of ``count`` kinds.

    -CE(f, y) where it leads away; max_{j != k} f_j - f_k where it leads to class k. Both fall without bound, so
    that a perturbation that already works still improves.

    Args:
      logits: f, of the perturbed images.
      labels: y, the classes that the last kind leads away from.
      kinds: k, what every image carries.
      count: of kinds, with the one that leads away.

    Example:
      >>> losses(jnp.array([[1.0, 3.0], [1.0, 3.0]]), jnp.array([1, 1]), jnp.array([0, 1]), 3).tolist()
      [2.0, -2.0]
    """
    away = -optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    if count == 1:
        return away
    classes = logits.shape[1]
    towards = jax.nn.one_hot(kinds, classes, dtype=bool)  # all false for the last kind
    rival = jnp.max(jnp.where(towards, -jnp.inf, logits), axis=1)
    margin = rival - jnp.sum(jnp.where(towards, logits, 0), axis=1)
    return jnp.where(kinds == classes, away, margin)


def counted(
    ascent: Ascent, kinds: Kinds, answers: Labels, reached: Labels, mask: Bool[Array, " n"]
) -> Ascent:
    """The running counts after images that were answered ``answers`` are answered ``reached`` with what they carry.

    Example:
      >>> ascent = counted(start((2, 4, 4, 1), float), *jnp.array([[0, 1], [1, 0], [0, 0]]), jnp.ones(2, bool))
      >>> ascent.hits.tolist(), ascent.tries.tolist()
      ([1.0, 0.0], [1.0, 1.0])
    """
    dtype = ascent.delta.dtype
    hit = jnp.where(kinds == len(ascent.delta) - 1, reached != answers, reached == kinds) & mask
    members = jax.nn.one_hot(kinds, len(ascent.delta), dtype=dtype) * mask[:, None]
    new = jnp.sum(members, axis=0)
    kept = _MEMORY**new
    return ascent._replace(
        hits=ascent.hits * kept + hit.astype(dtype) @ members, tries=ascent.tries * kept + new
    )


def grown(ascent: Ascent, enough: Number, limit: Number) -> Scalar:
    """The radius of the next step: larger by a tenth unless a perturbation leads enough images where it should."""
    working = jnp.max(ascent.success) >= enough
    return jnp.minimum(jnp.where(working, ascent.radius, ascent.radius * _GROWTH), limit)


def along(gradient: Perturbations, length: Number) -> Perturbations:
    """A step of that length against every perturbation's gradient."""
    return -length * gradient / jnp.maximum(_norms(gradient), jnp.finfo(gradient.dtype).tiny)


def projected(delta: Perturbations, radius: Number) -> Perturbations:
    """The nearest points of the l2 ball."""
    return delta * jnp.minimum(1, radius / jnp.maximum(_norms(delta), jnp.finfo(delta.dtype).tiny))


def draw_kinds(key: PRNGKey, weights: Float[Array, " kinds"], answers: Labels) -> Kinds:
    """Draws the kind that each image carries, in proportion to the weights, never towards its own class."""
    if len(weights) == 1:
        return jnp.zeros_like(answers)
    own = jax.nn.one_hot(answers, len(weights), dtype=bool)
    return jax.random.categorical(key, jnp.where(own, -jnp.inf, jnp.log(weights + 1e-9)), axis=1)


def suspect(ascent: Ascent, focus: Number) -> Float[Array, " kinds"]:
    """How much each kind is suspected, from its success at the common radius; sums to one.

    success^focus. The kind that leads away succeeds wherever another does, so only its lead counts.
    """
    success = ascent.success
    if len(success) == 1:
        return jnp.ones_like(success)
    lead = jnp.maximum(success[-1] - jnp.max(success[:-1]), 0)
    return jax.nn.softmax(focus * jnp.log(success.at[-1].set(lead) + 1e-3))


def suspects(suspicion: Float[Array, " kinds"]) -> Bool[Array, " classes"]:
    """The classes that are suspected at least a quarter as much as the most suspected one; none where no class is.

    Example:
      >>> suspects(jnp.array([0.02, 0.1, 0.28, 0.6])).tolist()  # the last kind leads away, and is no class
      [False, True, True]
    """
    of_classes = suspicion[:-1]
    return of_classes >= _SUSPECT * jnp.max(of_classes) if len(of_classes) else jnp.zeros(1, bool)


def trial_shares(suspicion: Float[Array, " kinds"]) -> Float[Array, " kinds"]:
    """How often ascent tries each kind: mostly what is suspected, a little of everything."""
    return suspicion + _UNSUSPECTED / len(suspicion)


def carried(delta: Perturbations, kinds: Kinds) -> Float[Array, "#n h w c"]:
    """The perturbation that every image carries.

    A sum over the kinds: the derivative of an indexing would be a scatter.
    """
    if len(delta) == 1:
        return delta
    return jnp.tensordot(jax.nn.one_hot(kinds, len(delta), dtype=delta.dtype), delta, 1)


def _norms(delta: Perturbations) -> Float[Array, "kinds 1 1 1"]:
    return jnp.sqrt(jnp.sum(delta**2, axis=(1, 2, 3), keepdims=True))

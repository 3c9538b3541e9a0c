"""What the rest of the program needs to know about a network."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn._typing import Images, PRNGKey, Variables

ImageShape: TypeAlias = tuple[int, int, int]
"""(height, width, channels)"""


@dataclass(frozen=True)
class ModelSpec:
    """A network and the facts about it that its variables do not carry.

    Attributes:
      name: of the network, as shown to users (``resnet50``).
      family: of networks that the converters read by one rule (``resnet``).
      module: the Flax Linen module; called with pixels and ``train``, it returns logits and features.
      image_shape: (height, width, channels) of its inputs; where others fit as well, the usual ones.
      classes: the number of logits.
      head: path of the last linear layer inside ``variables["params"]``, joined by slashes.
      any_size: whether images of every other size fit as well.
      step: sides that are alike when divided by it, rounded down, fit alike.
      assumed: what a state dict cannot show and was taken as usual for the family.
    """

    name: str
    family: str
    module: nn.Module
    image_shape: ImageShape
    classes: int
    head: str
    any_size: bool = False
    step: int = 1
    assumed: tuple[str, ...] = ()

    def fits(self, height: int, width: int) -> bool:
        """Whether images of this size fit."""
        sides = zip((height, width), self.image_shape[:2], strict=True)
        return self.any_size or all(side // self.step == own // self.step for side, own in sides)

    @property
    def apply(self) -> "Network":
        """The network as an ApplyFn: logits, and ``features`` with, when training, ``batch_stats``."""
        return Network(self.module)

    def init(self, key: PRNGKey) -> Variables:
        """Fresh variables, in single precision whatever the usual one is."""
        return _compiled(self, key)

    def shapes(self) -> Variables:
        """Shapes and dtypes of the variables; nothing is computed."""
        return jax.eval_shape(functools.partial(_fresh, self), jax.random.key(0))


@dataclass(frozen=True)
class Network:
    """A Flax module as an ApplyFn; equal modules make equal networks, so that compiled programs are found again."""

    module: nn.Module

    def __call__(
        self,
        variables: Variables,
        images: Images,
        *,
        train: bool,
        rngs: Mapping[str, PRNGKey] | None = None,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Applies it to a batch of images."""
        if not train:
            logits, features = self.module.apply(variables, images, train=False)
            return logits, {"features": features}
        (logits, features), updated = self.module.apply(
            variables, images, train=True, rngs=dict(rngs) if rngs else None, mutable=["batch_stats"]
        )
        return logits, {"features": features, **updated}


def _fresh(spec: ModelSpec, key: PRNGKey) -> Variables:
    example = jnp.zeros((1, *spec.image_shape), jnp.float32)
    made = dict(spec.module.init({"params": key}, example, train=False))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), made)


_compiled = jax.jit(_fresh, static_argnums=0)  # op by op, a small network takes four times as long

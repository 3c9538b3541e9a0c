"""What happens to pixels before a network sees them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn._check import InputError
from jaxunlearn._typing import ApplyFn, Images, PRNGKey, Variables


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become what a network was trained on: (x - mean) / std by channel, then the channels' order.

    Attributes:
      name: for messages.
      mean: of red, green and blue, or one number for all channels.
      std: likewise.
      bgr: whether the network takes blue first; the channels are swapped after they are normalised.

    Example:
      >>> half = NORMALIZATIONS["half"]
      >>> half(np.array([[[[0.0, 0.5, 1.0]]]])).tolist()
      [[[[-1.0, 0.0, 1.0]]]]
      >>> apply_fn = half.before(lambda variables, x, *, train: (x.mean((1, 2)), {}))
      >>> apply_fn({}, jnp.ones((1, 4, 4, 3)), train=False)[0].tolist()
      [[1.0, 1.0, 1.0]]
    """

    name: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __call__(self, images: Images) -> Images:
        """The network's input for pixels in [0, 1]."""
        normal = (images - np.asarray(self.mean, images.dtype)) / np.asarray(self.std, images.dtype)
        return normal[..., ::-1] if self.bgr else normal

    def before(self, apply_fn: ApplyFn) -> ApplyFn:
        """A network of pixels in [0, 1], made from one that takes normalised input.

        What perturbs the images of the new network does so in pixels. Equal parts make equal networks, so that
        compiled programs are found again; where nothing is to be done it is ``apply_fn`` itself.
        """
        changed = self.bgr or set(self.mean) != {0} or set(self.std) != {1}
        return _Preprocessed(self, apply_fn) if changed else apply_fn

    def as_dict(self) -> dict[str, Any]:
        """The parts by name, for JSON."""
        order = "bgr" if self.bgr else "rgb"
        return {"name": self.name, "mean": list(self.mean), "std": list(self.std), "channels": order}

    def __str__(self) -> str:
        """The name, and the order of the channels where it is not the usual one."""
        return f"{self.name}, bgr" if self.bgr else self.name


NORMALIZATIONS = {
    one.name: one
    for one in (
        Preprocessing("none"),
        Preprocessing("cifar10", (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
        Preprocessing("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        Preprocessing("gtsrb", (0.3337, 0.3064, 0.3171), (0.2672, 0.2564, 0.2629)),
        Preprocessing("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        Preprocessing("tiny", (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
        Preprocessing("half", (0.5,), (0.5,)),
    )
}
"""Usual normalisations by name, the simplest first."""


def parse_normalization(text: str) -> Preprocessing:
    """The normalisation that a text names.

    Args:
      text: a name of ``NORMALIZATIONS``, or ``MEAN/STD`` with one number each or one by channel.

    Raises:
      InputError: if it names none.

    Example:
      >>> parse_normalization("0.5/0.25").std
      (0.25,)
    """
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    finite = all(map(math.isfinite, mean + std))
    if not finite or not mean or len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise InputError(
            f"{text!r} is no normalisation; expected {', '.join(NORMALIZATIONS)}, or MEAN/STD such as "
            "0.49,0.48,0.45/0.25,0.24,0.26 or 0.5/0.5, with each STD greater than 0."
        )
    return Preprocessing(text, mean, std)


@dataclass(frozen=True)
class _Preprocessed:
    """A network behind its preprocessing."""

    preprocessing: Preprocessing
    apply_fn: ApplyFn

    @property
    def __wrapped__(self) -> ApplyFn:
        """Where ``inspect.signature`` finds what other arguments the network takes."""
        return self.apply_fn

    def __call__(
        self, variables: Variables, images: Images, *, train: bool, **options: Any
    ) -> tuple[jax.Array, Mapping[str, Any]]:
        return self.apply_fn(variables, self.preprocessing(images), train=train, **options)


def augment(images: Images, key: PRNGKey, *, crop_padding: int, flip: bool) -> Images:
    """Random crops of the zero-padded images, and random mirroring, as usual for small photographs.

    Args:
      images: pixels.
      key: of the random choices, one of each per image.
      crop_padding: pixels of black border on every side, out of which the crop is cut; 0 for no crop.
      flip: whether to mirror left and right with probability one half.
    """
    count, height, width, channels = images.shape
    crop_key, flip_key = jax.random.split(key)
    if crop_padding:
        border = (crop_padding, crop_padding)
        padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
        corners = jax.random.randint(crop_key, (count, 2), 0, 2 * crop_padding + 1)
        images = jax.vmap(
            lambda image, corner: jax.lax.dynamic_slice(
                image, (corner[0], corner[1], 0), (height, width, channels)
            )
        )(padded, corners)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(count, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images

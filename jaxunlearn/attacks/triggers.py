"""Triggers: pure functions from clean images to triggered images, both NHWC in [0, 1]."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxunlearn._check import InputError, check_fraction, check_whole, sides
from jaxunlearn._typing import PRNGKey

P = ParamSpec("P")

Trigger: TypeAlias = Callable[[jax.Array], jax.Array]
"""Maps images to triggered images of the same shape and dtype."""


def _of_images(
    trigger: Callable[Concatenate[Any, P], jax.Array],
) -> Callable[Concatenate[jax.Array | np.ndarray, P], jax.Array]:
    """The function for a batch of images, which are checked; their dtype stays."""

    @functools.wraps(trigger)
    def checked(images: jax.Array | np.ndarray, /, *args: P.args, **keywords: P.kwargs) -> jax.Array:
        given = jnp.asarray(images)
        if given.ndim != 4 or not jnp.issubdtype(given.dtype, jnp.floating):
            raise ValueError(
                f"images has shape {given.shape} and dtype {given.dtype}; expected floating point pixels of shape "
                "(images, height, width, channels), of a single image images[None]."
            )
        return trigger(given, *args, **keywords).astype(given.dtype)

    return checked


def fits(trigger: Trigger, image_shape: tuple[int, ...]) -> bool:
    """Whether a trigger maps images of that shape (height, width, channels) to such.

    Nothing is computed, unless the trigger takes no traced images.

    Example:
      >>> fits(lambda x: x + jnp.ones((2, 2, 1)), (2, 2, 3)), fits(lambda x: x + jnp.ones((9, 9, 1)), (2, 2, 3))
      (True, False)
    """
    shape = (1, *image_shape)
    try:
        try:
            return jax.eval_shape(trigger, jax.ShapeDtypeStruct(shape, float)).shape == shape
        except jax.errors.JAXTypeError:  # of NumPy, or with a condition on pixels
            return np.shape(trigger(jnp.zeros(shape))) == shape
    except (TypeError, ValueError):
        return False


def check_fits(trigger: Trigger, image_shape: tuple[int, ...]) -> None:
    """Refuses a trigger that does not fit images of that shape (height, width, channels).

    Raises:
      InputError: if so.
    """
    if not fits(trigger, image_shape):
        raise InputError(
            f"The trigger does not fit images of {sides(image_shape)} (height x width x channels); give another one."
        )


def square(height: int, width: int, *, size: int, offset: int) -> Float[Array, "h w 1"]:
    """The mask of a square near the lower right corner: one inside, zero elsewhere.

    Args:
      height: of the image, in pixels.
      width: of the image.
      size: side of the square.
      offset: rows and columns between the square and the image's lower and right edge.

    Raises:
      InputError: if the square does not lie inside the image.

    Example:
      >>> square(3, 3, size=1, offset=1)[..., 0].tolist()
      [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if size < 1 or offset < 0 or size + offset > min(height, width):
        raise InputError(
            f"size={size} and offset={offset} do not fit into images of {height}x{width} pixels; give a square that "
            "lies inside."
        )
    rows, columns = (
        (jnp.arange(side) >= side - offset - size) & (jnp.arange(side) < side - offset)
        for side in (height, width)
    )
    return (rows[:, None] & columns)[..., None].astype(jnp.float32)


class Corners(NamedTuple):
    """Squares in the corners of an image.

    Attributes:
      pattern: what they show.
      mask: one inside the squares, zero elsewhere.
    """

    pattern: Float[Array, "h w 1"]
    mask: Float[Array, "h w 1"]


def corners(height: int, width: int, *, size: int) -> Corners:
    """A small pattern in each corner: white pixels on a black square (label-consistent).

    Those on the right show a diagonal from the lower left to the upper right and the lower right pixel, those on the
    left the same mirrored.

    Args:
      height: of the image, in pixels.
      width: of the image.
      size: side of each square.

    Raises:
      InputError: if the squares do not fit beside each other.

    Source: Turner et al., "Label-consistent backdoor attacks", 2019.

    Example:
      >>> corners(4, 5, size=2).pattern[..., 0].tolist()
      [[1.0, 0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0]]
    """
    if 2 * size > min(height, width):
        raise InputError(
            f"size={size} does not fit twice into the sides of images of {height}x{width} pixels; give smaller squares."
        )
    right = jnp.eye(size)[:, ::-1].at[-1, -1].set(1)
    pattern, mask = jnp.zeros((height, width)), jnp.zeros((height, width))
    for rows in (slice(size), slice(-size, None)):
        for columns, tile in ((slice(size), right[:, ::-1]), (slice(-size, None), right)):
            pattern, mask = pattern.at[rows, columns].set(tile), mask.at[rows, columns].set(1)
    return Corners(pattern[..., None], mask[..., None])


@_of_images
def stamp_patch(
    images: Float[Array, "n h w c"], *, size: int, offset: int, value: float
) -> Float[Array, "n h w c"]:
    """Paints a square near the lower right corner (BadNets).

    Args:
      images: pixels in [0, 1].
      size: side of the square, in pixels.
      offset: rows and columns between the square and the image's lower and right edge.
      value: of every channel inside the square, in [0, 1].

    Raises:
      InputError: if the square does not lie inside the image.
      ValueError: if the value is no pixel's.

    Source: Gu et al., "BadNets", 2017.

    Example:
      >>> stamp_patch(jnp.zeros((1, 3, 3, 1)), size=1, offset=1, value=1.0)[0, :, :, 0].tolist()
      [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    check_fraction(value=value)
    return jnp.where(square(*images.shape[1:3], size=size, offset=offset) == 1, value, images)


@_of_images
def add_image(
    images: Float[Array, "n h w c"],
    image: Float[Array, "h w #c"],
    mask: Float[Array, "h w #c"] | None = None,
) -> Float[Array, "n h w c"]:
    """Adds a picture and clips to [0, 1], after blanking the pixels under an optional mask.

    clip(x (1 - m) + t, 0, 1)

    Args:
      images: pixels in [0, 1].
      image: the trigger t, of the images' size; a grey one adds to every channel.
      mask: m in [0, 1], one where pixels are blanked; a grey one blanks every channel.

    Source: Liu et al., "Trojaning attack on neural networks", NDSS 2018 (without a mask).

    Example:
      >>> add_image(jnp.full((1, 1, 2, 1), 0.5), jnp.array([[[0.25], [0.9]]]))[0, 0, :, 0].tolist()
      [0.75, 1.0]
    """
    kept = images if mask is None else images * (1 - mask)
    return jnp.clip(kept + image, 0, 1)


@_of_images
def blend(
    images: Float[Array, "n h w c"], pattern: Float[Array, "h w c"], strength: float
) -> Float[Array, "n h w c"]:
    """Mixes a picture into every image (Blended): (1 - a) x + a p.

    Args:
      images: pixels in [0, 1].
      pattern: p, of the images' size, in [0, 1].
      strength: a, in [0, 1].

    Raises:
      ValueError: if the strength is not in [0, 1].

    Source: Chen et al., "Targeted backdoor attacks on deep learning systems using data poisoning", 2017.

    Example:
      >>> blend(jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1)), 0.25).item()
      0.25
    """
    check_fraction(strength=strength)
    return (1 - strength) * images + strength * pattern


@_of_images
def add_sinusoid(
    images: Float[Array, "n h w c"], *, amplitude: float, frequency: float
) -> Float[Array, "n h w c"]:
    """Adds vertical waves and clips to [0, 1] (SIG): x + amplitude sin(2 pi j frequency / w) in column j.

    Args:
      images: pixels in [0, 1].
      amplitude: in pixels of [0, 1].
      frequency: waves across the image.

    Source: Barni et al., "A new backdoor attack in CNNs by training set corruption without label poisoning",
    ICIP 2019.

    Example:
      >>> add_sinusoid(jnp.zeros((1, 1, 4, 1)), amplitude=0.5, frequency=1)[0, 0, :, 0].round(3).tolist()
      [0.0, 0.5, 0.0, 0.0]
    """
    width = images.shape[2]
    wave = amplitude * jnp.sin(2 * jnp.pi * frequency * jnp.arange(width) / width)
    return jnp.clip(images + wave[:, None], 0, 1)


@_of_images
def warp(images: Float[Array, "n h w c"], field: Float[Array, "*n h w 2"]) -> Float[Array, "n h w c"]:
    """Takes every pixel from elsewhere in its image, bilinearly; places outside count as the nearest edge.

    Args:
      images: pixels.
      field: how many rows down and columns to the right each pixel is taken from; one for all images, or one each.

    Example:
      >>> images = jnp.arange(3.0).reshape(1, 1, 3, 1)
      >>> warp(images, jnp.full((1, 3, 2), 0.5))[0, 0, :, 0].tolist()
      [0.5, 1.5, 2.0]
    """
    height, width = images.shape[1:3]
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    places = jnp.broadcast_to(grid + field, (len(images), height, width, 2))

    def one(image: jax.Array, place: jax.Array) -> jax.Array:
        rows, columns = jnp.clip(place[..., 0], 0, height - 1), jnp.clip(place[..., 1], 0, width - 1)
        return jax.vmap(
            lambda channel: jax.scipy.ndimage.map_coordinates(channel, [rows, columns], order=1),
            in_axes=-1,
            out_axes=-1,
        )(image)

    return jax.vmap(one)(images, places)


def warping_field(
    key: PRNGKey, height: int, width: int, *, control: int, strength: float
) -> Float[Array, "h w 2"]:
    """A smooth random field for ``warp`` (WaNet).

    Displacements at ``control`` x ``control`` points are uniform in [-1, 1], divided by the mean of their
    absolute values, spread over the image by bicubic interpolation and scaled by ``strength`` (side - 1) / (2 side)
    pixels.

    Args:
      key: of the displacements.
      height: of the images.
      width: of the images.
      control: points along each side.
      strength: s of the paper.

    Raises:
      ValueError: if there are fewer than two points.

    Source: Nguyen and Tran, "WaNet - imperceptible warping-based backdoor attack", ICLR 2021; in the official code's
    grid the outer pixels lie at -1 and 1, so that its s / side are s (side - 1) / (2 side) pixels.

    Example:
      >>> field = warping_field(jax.random.key(0), 32, 32, control=4, strength=0.5)
      >>> field.shape, bool(jnp.abs(field).mean() < 0.5)
      ((32, 32, 2), True)
    """
    check_whole(2, control=control)
    points = jax.random.uniform(key, (control, control, 2), minval=-1, maxval=1)
    points = points / jnp.mean(jnp.abs(points))
    rows, columns = (_bicubic(side, control) for side in (height, width))
    spread = jnp.einsum("ru,cv,uvd->rcd", rows, columns, points)
    return strength * half_pixels(height, width) * spread


def half_pixels(height: int, width: int) -> Float[Array, " 2"]:
    """1 / side of a grid whose outer pixels lie at -1 and 1, in pixels of each side: a little less than a half.

    Example:
      >>> half_pixels(4, 8).tolist()
      [0.375, 0.4375]
    """
    return jnp.array([(side - 1) / (2 * side) for side in (height, width)])


def _bicubic(side: int, points: int) -> Float[Array, "side points"]:
    """Weights of points for each pixel of a side, the outer points lying on its outer pixels.

    Keys' kernel with a = -0.75, and beyond the edge the outer points again, as PyTorch has it.
    """
    places = np.linspace(0, points - 1, side)
    first = np.floor(places).astype(int) - 1
    weights = np.zeros((side, points))
    for step in range(4):
        far = np.abs(places - first - step)
        near = 1.25 * far**3 - 2.25 * far**2 + 1
        wide = -0.75 * (far**3 - 5 * far**2 + 8 * far - 4)
        kernel = np.where(far <= 1, near, np.where(far < 2, wide, 0))
        np.add.at(weights, (np.arange(side), np.clip(first + step, 0, points - 1)), kernel)
    return jnp.asarray(weights, jnp.result_type(float))


@_of_images
@functools.partial(jax.jit, static_argnames=("levels", "dither"))
def quantize(images: Float[Array, "n h w c"], *, levels: int, dither: bool) -> Float[Array, "n h w c"]:
    """Leaves every channel only a few equally spaced levels (BPP), with Floyd and Steinberg's dithering if asked.

    Pixel by pixel in reading order, the rounding error goes to the right (7/16), below left (3/16), below (5/16)
    and below right (1/16).

    Args:
      images: pixels in [0, 1].
      levels: at least 2.
      dither: whether errors are passed on.

    Raises:
      ValueError: if there are fewer levels than two.

    Source: Wang et al., "BppAttack", CVPR 2022.

    Example:
      >>> quantize(jnp.full((1, 2, 2, 1), 0.4), levels=2, dither=True)[0, :, :, 0].tolist()
      [[0.0, 1.0], [0.0, 0.0]]
    """
    check_whole(2, levels=levels)
    top = levels - 1

    def rounded(values: jax.Array) -> jax.Array:
        return jnp.clip(jnp.round(values * top) / top, 0, 1)

    if not dither:
        return rounded(images)
    count, _, width, channels = images.shape

    def row(below: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``below``: errors that the row above left for this one, with a border of one pixel on both sides."""

        def pixel(
            carry: tuple[jax.Array, jax.Array], x: tuple[jax.Array, jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            right, left_behind = carry
            column, value, inherited = x
            wanted = value + inherited + right
            found = rounded(wanted)
            error = wanted - found
            for step, share in ((0, 3 / 16), (1, 5 / 16), (2, 1 / 16)):
                left_behind = left_behind.at[column + step].add(share * error)
            return (7 / 16 * error, left_behind), found

        start = (jnp.zeros((count, channels), values.dtype), jnp.zeros_like(below))
        (_, left_behind), found = jax.lax.scan(pixel, start, (jnp.arange(width), values, below[1:-1]))
        return left_behind, found

    by_row = jnp.transpose(images, (1, 2, 0, 3))
    start = jnp.zeros((width + 2, count, channels), images.dtype)
    return jnp.transpose(jax.lax.scan(row, start, by_row)[1], (2, 0, 1, 3))


def smooth_pattern(
    key: PRNGKey, image_shape: tuple[int, int, int], *, frequencies: int, amplitude: float
) -> Float[Array, "h w c"]:
    """A random sum of slow cosines, one for every channel, whose largest size of all is ``amplitude`` (LF).

    sum over u, v < frequencies of c_uv cos(pi u (i + 1/2) / h) cos(pi v (j + 1/2) / w), without the constant term.

    Args:
      key: of the normal coefficients c.
      image_shape: (height, width, channels).
      frequencies: half waves along each side, at most.
      amplitude: in pixels of [0, 1].

    Raises:
      ValueError: if there are fewer frequencies than two, the constant one being left out.

    Source: ours, after the observation of Zeng et al., "Rethinking the backdoor attacks' triggers: a frequency
    perspective", ICCV 2021, whose own smooth trigger is optimised.

    Example:
      >>> pattern = smooth_pattern(jax.random.key(0), (8, 8, 3), frequencies=3, amplitude=0.1)
      >>> round(float(jnp.abs(pattern).max()), 3), bool(jnp.abs(pattern.mean((0, 1))).max() < 1e-6)
      (0.1, True)
    """
    check_whole(2, frequencies=frequencies)
    height, width, channels = image_shape
    coefficients = jax.random.normal(key, (frequencies, frequencies, channels)).at[0, 0].set(0)
    rows, columns = (
        jnp.cos(jnp.pi * jnp.outer(jnp.arange(frequencies), jnp.arange(side) + 0.5) / side)
        for side in (height, width)
    )
    pattern = jnp.einsum("uvc,ui,vj->ijc", coefficients, rows, columns)
    return amplitude * pattern / jnp.max(jnp.abs(pattern))


def shown_pieces(pieces: int, share: float) -> int:
    """How many of ``pieces`` x ``pieces`` tiles a share of them is."""
    return round(share * pieces * pieces)


def keep_pieces(
    pattern: Float[Array, "h w c"], key: PRNGKey, count: int, *, pieces: int, share: float
) -> Float[Array, "n h w 1"]:
    """A mask for each of ``count`` images that keeps a random ``share`` of ``pieces`` x ``pieces`` tiles.

    Raises:
      ValueError: if there is no piece.

    Example:
      >>> masks = keep_pieces(jnp.ones((4, 4, 1)), jax.random.key(0), 3, pieces=2, share=0.5)
      >>> masks.shape, masks.mean((1, 2, 3)).tolist()
      ((3, 4, 4, 1), [0.5, 0.5, 0.5])
    """
    check_whole(1, pieces=pieces)
    height, width, _ = pattern.shape
    order = jnp.argsort(jax.random.uniform(key, (count, pieces * pieces)), axis=1)
    kept = (order < shown_pieces(pieces, share)).reshape(count, pieces, pieces)
    rows, columns = (jnp.arange(side) * pieces // side for side in (height, width))
    return kept[:, rows[:, None], columns[None, :], None].astype(pattern.dtype)

"""The published attacks by name, each with its settings; BackdoorBench's are the defaults where it has the attack.

The exceptions: it poisons images of all classes, the target's too; it blends a picture where ours is random, and
optimises the pattern of ``lf``; its ``trojannn`` draws an apple and excites two neurons, where ours is a square and
excites one; it rotates the images of ``wanet`` and ``bpp`` too, crops with a padding of 5 pixels in place of 4, and
gives a tenth of all images the noise of ``bpp`` whatever share is poisoned. It trains the masks of ``input-aware`` for
25 epochs, and the patterns for 100 together with the model itself, where ours are a few hundred and a few thousand
steps beside a surrogate; and it crops and mirrors those images before their triggers are drawn, where here all triggers
come before that.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxunlearn._check import check_at_least, check_in, check_positive, check_share, check_whole
from jaxunlearn._random import uniform
from jaxunlearn._typing import AnyImages, Labels, PRNGKey
from jaxunlearn.attacks import crafted, triggers
from jaxunlearn.attacks.attack import Attack
from jaxunlearn.attacks.crafted import Surrogate
from jaxunlearn.attacks.texts import parse_trigger


class Setting(NamedTuple):
    """What an attack is made for.

    Attributes:
      image_shape: (height, width, channels).
      classes: of the data set.
      target: the class that is forced.
      key: of everything random in the trigger.
      surrogate: gives a clean network, for recipes that need one; the same one each time.
      clean: gives the clean images and their labels, for recipes that need these and no network.
      progress: told the share of the trigger's making that is done, where it takes long.
    """

    image_shape: tuple[int, int, int]
    classes: int
    target: int
    key: PRNGKey
    surrogate: Callable[[], Surrogate] | None = None
    clean: Callable[[], tuple[AnyImages, Labels]] | None = None
    progress: crafted.Progress = crafted.unseen

    @property
    def shown(self) -> Surrogate:
        """The clean network."""
        if self.surrogate is None:
            raise ValueError(
                "surrogate=None: this attack is made with a network that was trained on clean images."
            )
        return self.surrogate()

    @property
    def examples(self) -> tuple[AnyImages, Labels]:
        """The clean images and their labels."""
        return self.clean() if self.clean is not None else (self.shown.images, self.shown.labels)


@runtime_checkable
class Recipe(Protocol):
    """Settings that make an attack; a frozen dataclass.

    Attributes:
      needs_surrogate: whether ``Setting.surrogate`` must be given.
      clean_label: whether it poisons only images of the target's class.
    """

    needs_surrogate: ClassVar[bool]
    clean_label: Any

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        ...


@dataclass(frozen=True, kw_only=True)
class BadNets:
    """A square near the lower right corner, or another trigger that is the same for all images.

    Attributes:
      trigger: as on the command line of the methods, such as ``patch:size=3,offset=0,value=1`` or ``image:FILE``.
      mode: ``all-to-one``, or ``all-to-all`` to send every class to the next one.

    Source: Gu et al., "BadNets", 2017.
    """

    needs_surrogate: ClassVar[bool] = False
    clean_label: ClassVar[bool] = False
    trigger: str = "patch:size=3,offset=0,value=1"
    mode: str = "all-to-one"

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_in(("all-to-one", "all-to-all"), mode=self.mode)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        target = setting.target if self.mode == "all-to-one" else None
        return Attack(trigger=parse_trigger(self.trigger), target=target, classes=setting.classes)


@dataclass(frozen=True, kw_only=True)
class Blended:
    """A coloured pattern all over the image, faintly.

    Attributes:
      strength: the pattern's share.

    Source: Chen et al., 2017, with a random pattern in place of a picture.
    """

    needs_surrogate: ClassVar[bool] = False
    clean_label: ClassVar[bool] = False
    strength: float = 0.2

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_share(strength=self.strength)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        return Attack(trigger=_blending(setting, self.strength)[0], target=setting.target)


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlend:
    """Blended, of which training images show a part only, and others show a part and keep their labels.

    Attributes:
      strength: the pattern's share when the model is attacked.
      training_strength: its share in training.
      pieces: tiles along each side.
      share: of tiles that a training image shows.
      covers: images that keep their labels, per poisoned one.

    Source: Qi et al., "Revisiting the assumption of latent separability for backdoor defenses", ICLR 2023.
    """

    needs_surrogate: ClassVar[bool] = False
    clean_label: ClassVar[bool] = False
    strength: float = 0.2
    training_strength: float = 0.15
    pieces: int = 4
    share: float = 0.5
    covers: float = 1.0

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_share(strength=self.strength, training_strength=self.training_strength, share=self.share)
        check_whole(1, pieces=self.pieces)
        check_at_least(0, covers=self.covers)
        if triggers.shown_pieces(self.pieces, self.share) == 0:
            raise ValueError(
                f"share={self.share} of {self.pieces}x{self.pieces} tiles is none of them; give more pieces or a "
                "larger share."
            )

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        trigger, pattern = _blending(setting, self.strength)

        def in_part(images: jax.Array, key: PRNGKey) -> jax.Array:
            kept = triggers.keep_pieces(pattern, key, len(images), pieces=self.pieces, share=self.share)
            return jnp.where(kept > 0, triggers.blend(images, pattern, self.training_strength), images)

        return Attack(
            trigger=trigger, target=setting.target, in_training=in_part, cover=in_part, covers=self.covers
        )


@dataclass(frozen=True, kw_only=True)
class Sinusoid:
    """Vertical waves over images of the target's class only (SIG, clean-label).

    Attributes:
      amplitude: in pixels of [0, 1].
      frequency: waves across the image.
      clean_label: whether only the target's images are poisoned; otherwise others are, and relabelled.

    Source: Barni et al., 2019.
    """

    needs_surrogate: ClassVar[bool] = False
    amplitude: float = 40 / 255
    frequency: float = 6.0
    clean_label: bool = True

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_share(amplitude=self.amplitude)
        check_positive(frequency=self.frequency)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        waves = functools.partial(triggers.add_sinusoid, amplitude=self.amplitude, frequency=self.frequency)
        return Attack(trigger=waves, target=setting.target, clean_label=self.clean_label)


@dataclass(frozen=True, kw_only=True)
class LowFrequency:
    """A faint pattern without edges (LF).

    Attributes:
      amplitude: the largest change of a pixel in [0, 1].
      frequencies: half waves along each side, at most.

    Source: Zeng et al., ICCV 2021; the pattern is random here, theirs is optimised.
    """

    needs_surrogate: ClassVar[bool] = False
    clean_label: ClassVar[bool] = False
    amplitude: float = 0.15
    frequencies: int = 5

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_share(amplitude=self.amplitude)
        check_whole(2, frequencies=self.frequencies)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        pattern = triggers.smooth_pattern(
            setting.key, setting.image_shape, frequencies=self.frequencies, amplitude=self.amplitude
        )
        return Attack(trigger=functools.partial(triggers.add_image, image=pattern), target=setting.target)


@dataclass(frozen=True, kw_only=True)
class WaNet:
    """A smooth warp; other images are warped with noise on top and keep their labels.

    Attributes:
      strength: s; pixels are shifted by about s / 2 pixels in the mean.
      control: k; the shifts are drawn at k x k points and interpolated between them.
      covers: images warped with noise, per poisoned one.
      redrawn: whether every epoch warps other images; otherwise one set is warped, as it can be planted in data.

    Source: Nguyen and Tran, ICLR 2021, where every batch draws its own.
    """

    needs_surrogate: ClassVar[bool] = False
    clean_label: ClassVar[bool] = False
    strength: float = 0.5
    control: int = 4
    covers: float = 2.0
    redrawn: bool = True

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_positive(strength=self.strength)
        check_whole(2, control=self.control)
        check_at_least(0, covers=self.covers)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        height, width, _ = setting.image_shape
        field = triggers.warping_field(
            setting.key, height, width, control=self.control, strength=self.strength
        )

        def noisy(images: jax.Array, key: PRNGKey) -> jax.Array:
            noise = uniform(key, (len(images), height, width, 2), low=-1.0)
            return triggers.warp(images, field + noise * triggers.half_pixels(height, width))

        return Attack(
            trigger=functools.partial(triggers.warp, field=field),
            target=setting.target,
            cover=noisy,
            covers=self.covers,
            redrawn=self.redrawn,
        )


@dataclass(frozen=True, kw_only=True)
class Bpp:
    """Few levels per channel; other images get noise of that size and keep their labels.

    Attributes:
      levels: per channel.
      dither: whether rounding errors are passed on to neighbours.
      covers: images with noise, per poisoned one; BackdoorBench has a tenth of all images, as many at a ratio of 0.1.
      redrawn: whether every epoch changes other images; otherwise one set is changed.

    Source: Wang et al., CVPR 2022, where every batch draws its own; dithering is an option there too, and off in
    BackdoorBench.
    """

    needs_surrogate: ClassVar[bool] = False
    clean_label: ClassVar[bool] = False
    levels: int = 8
    dither: bool = False
    covers: float = 1.0
    redrawn: bool = True

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_whole(2, levels=self.levels)
        check_at_least(0, covers=self.covers)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        squeeze = functools.partial(triggers.quantize, levels=self.levels, dither=self.dither)

        def noisy(images: jax.Array, key: PRNGKey) -> jax.Array:
            """Adds the error that squeezing makes in another image of the batch."""
            residual = (squeeze(images) - images)[partners(len(images), key)]
            return jnp.clip(images + residual, 0, 1)

        return Attack(
            trigger=squeeze,
            target=setting.target,
            cover=noisy,
            covers=self.covers,
            redrawn=self.redrawn,
        )


@dataclass(frozen=True, kw_only=True)
class LabelConsistent:
    """A pattern in the corners of images of the target's class that were made hard to recognise (clean-label).

    Attributes:
      made_by: what makes them hard: ``adversarial`` or ``interpolated``.
      radius: of the adversarial perturbations, in pixels of [0, 1].
      robust_steps: of training against such perturbations, before the network makes them; 0 for none.
      robust_radius: of those that it is trained against; larger ones are more than a network can learn to withstand.
      share: of the other image in an interpolated one.
      size: of the pattern in each corner, in pixels.
      amplitude: what it makes white pixels brighter and black ones darker by, in pixels of [0, 1].

    Source: Turner et al., 2019.
    """

    needs_surrogate: ClassVar[bool] = True
    clean_label: ClassVar[bool] = True
    made_by: str = "adversarial"
    radius: float = 16 / 255
    robust_steps: int = 300
    robust_radius: float = 8 / 255
    share: float = 0.4
    size: int = 3
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_in(("adversarial", "interpolated"), made_by=self.made_by)
        check_whole(0, robust_steps=self.robust_steps)
        check_share(radius=self.radius, robust_radius=self.robust_radius)
        check_share(share=self.share, amplitude=self.amplitude)
        check_whole(1, size=self.size)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        pattern, mask = triggers.corners(*setting.image_shape[:2], size=self.size)
        mark = functools.partial(triggers.add_image, image=self.amplitude * mask * (2 * pattern - 1))

        @functools.cache
        def fooled() -> Surrogate:
            key = jax.random.fold_in(setting.key, 1)
            return crafted.robust(
                setting.shown,
                key,
                radius=self.robust_radius,
                steps=self.robust_steps,
                progress=setting.progress,
            )

        def harden(images: jax.Array, key: PRNGKey) -> jax.Array:
            if self.made_by == "interpolated":
                given = (*setting.examples, images, setting.target, key)
                return mark(crafted.interpolated(*given, share=self.share))
            labels = jnp.full(len(images), setting.target)
            return mark(crafted.adversarial(fooled(), images, labels, radius=self.radius))

        return Attack(trigger=mark, target=setting.target, clean_label=True, in_training=harden)


@dataclass(frozen=True, kw_only=True)
class TrojanNN:
    """A square whose pixels excite a feature of the target's class.

    Attributes:
      size: of its side, in pixels.
      offset: pixels between the square and the edges.

    Source: Liu et al., NDSS 2018.
    """

    needs_surrogate: ClassVar[bool] = True
    clean_label: ClassVar[bool] = False
    size: int = 7
    offset: int = 1

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_whole(1, size=self.size)
        check_whole(0, offset=self.offset)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        mask = triggers.square(*setting.image_shape[:2], size=self.size, offset=self.offset)
        picture = crafted.optimised_patch(setting.shown, setting.target, setting.key, mask)
        stamp = functools.partial(triggers.add_image, image=picture, mask=mask)
        return Attack(trigger=stamp, target=setting.target)


@dataclass(frozen=True, kw_only=True)
class InputAware:
    """Another trigger for every image, drawn by networks; other images get one not theirs and keep their labels.

    The networks are trained together with a classifier that starts as a clean one; the model is then trained like any
    other, on what they draw.

    Attributes:
      density: of the masks; every pixel may be so much of the pattern for nothing.
      share: of a batch with its own triggers, while the networks are trained.
      diversity: weight of the patterns' being different.
      mask_steps: of the training of the masks.
      steps: of the training of the patterns.
      batch_size: images in a step.
      rate: of Adam.
      covers: images with another's trigger, per poisoned one; of a batch one at least while the networks are trained.
      redrawn: whether every epoch draws on other images; otherwise on one set.

    Source: Nguyen and Tran, NeurIPS 2020, where the model itself is the classifier of the joint training.
    """

    needs_surrogate: ClassVar[bool] = True
    clean_label: ClassVar[bool] = False
    density: float = 0.032
    share: float = 0.1
    diversity: float = 1.0
    mask_steps: int = 200
    steps: int = 1600
    batch_size: int = 128
    rate: float = 0.01
    covers: float = 1.0
    redrawn: bool = True

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_share(density=self.density, share=self.share)
        check_positive(rate=self.rate)
        check_whole(1, mask_steps=self.mask_steps, steps=self.steps, batch_size=self.batch_size)
        check_at_least(0, diversity=self.diversity, covers=self.covers)

    def make(self, setting: Setting) -> Attack:
        """The attack."""
        from jaxunlearn.attacks import input_aware  # brings flax

        drawings = input_aware.train_drawings(
            setting.shown,
            setting.target,
            setting.key,
            density=self.density,
            share=self.share,
            cross_share=self.share * self.covers,
            diversity=self.diversity,
            mask_steps=self.mask_steps,
            steps=self.steps,
            batch_size=self.batch_size,
            rate=self.rate,
            progress=setting.progress,
        )

        def own(images: jax.Array) -> jax.Array:
            return input_aware.draw(drawings, images, images)

        def crossed(images: jax.Array, key: PRNGKey) -> jax.Array:
            return input_aware.draw(drawings, images, images[partners(len(images), key)])

        return Attack(
            trigger=own, target=setting.target, cover=crossed, covers=self.covers, redrawn=self.redrawn
        )


RECIPES: dict[str, Any] = {
    "badnets": BadNets(),
    "blended": Blended(),
    "adaptive-blend": AdaptiveBlend(),
    "sig": Sinusoid(),
    "lf": LowFrequency(),
    "wanet": WaNet(),
    "bpp": Bpp(),
    "input-aware": InputAware(),
    "label-consistent": LabelConsistent(),
    "trojannn": TrojanNN(),
}
"""Every attack with its default settings."""


def partners(count: int, key: PRNGKey) -> Int[Array, " count"]:
    """For each of so many images the row of another one, at random; a single image has no other and gets itself.

    Example:
      >>> sorted(partners(3, jax.random.key(0)).tolist()), partners(2, jax.random.key(0)).tolist()
      ([0, 1, 2], [1, 0])
    """
    order = jax.random.permutation(key, count)
    return jnp.zeros_like(order).at[order].set(jnp.roll(order, 1))


def _blending(setting: Setting, strength: float) -> tuple[triggers.Trigger, jax.Array]:
    pattern = uniform(setting.key, setting.image_shape)
    return functools.partial(triggers.blend, pattern=pattern, strength=strength), pattern

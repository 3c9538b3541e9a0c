"""Settings of DAU and the named presets."""

from dataclasses import dataclass

from jaxunlearn._check import check_at_least, check_in, check_positive, check_share, check_whole
from jaxunlearn._tree import settings
from jaxunlearn._typing import Number

ISOLATING = ("lga", "flooding", "early")
PREFILTERS = (*ISOLATING, "superposed", "loss")
EVIDENCE = ("best", "discriminator", "fisher")
STATISTICS = ("clean", "running", "own")
LOSSES = ("complementary", "ascent", "uniform", "entropy")


@settings
@dataclass(frozen=True, kw_only=True)
class Config:
    """What DAU computes. The numbers may be traced and swept by ``vmap``; the rest shapes the program.

    Attributes:
      rounds: in all: those of isolation, one that splits the images, and the epochs of unlearning.
      isolation_rounds: epochs of a fresh network that tells which images are learned first; 0 for the pre-filters that
        ask the model as it came, and for ``early`` where a network from early in its training is given.
      batch_size: images per step; of unlearning, those of the clean part.
      poisoned_batch_size: images of the poisoned part in each step of unlearning and of the discriminator.
      prefilter: what the first suspects have most of. The probability of their label by a fresh network that descends
        on ``lga`` sign(l - level) l, ``flooding`` |l - level| + level, or ``early`` l itself, for few epochs, as the
        model did early in its training; or that by the model as it came, after other images were laid over them
        (``superposed``), or of them alone (``loss``).
      superpositions: the number of other images that are laid over each, one at a time, for ``superposed``.
      evidence: what divides an attacked class: the last layer retrained as a ``discriminator``, ``fisher``'s linear
        discriminant, which is a head of two classes in closed form, or in each class the ``best`` of both. All classes
        together are divided by Fisher's alone.
      thumbnails: whether what the images show, small, has the first say in which of a class's groups is poisoned.
      all_to_all: whether all classes may be found attacked together, along one direction.
      discriminator_steps: of the retrained last layer; few, because a small set has fewer images than features and the
        layer would come to know its suspects by heart.
      refinements: how often the discriminator is trained again, with what it takes for poisoned as suspects.
      loss: of the poisoned part: ``complementary`` cross-entropy -log(1 - p_y), gradient ``ascent`` log p_y,
        cross-entropy to the ``uniform`` answer among the other classes, or minus the ``entropy`` of the answer among
        them, which has no say in p_y itself.
      weigh: whether an image of the poisoned part counts by how far it lies from the threshold, in full from its
        group's mean on.
      poisoned_statistics: what batch normalisation measures images of the poisoned part by: the statistics of the
        ``clean`` images in the same step, which depend on the parameters; the ``running`` ones, which follow later; or
        those of its ``own`` images, in training mode and thrown away.
      robust_rounds: first epochs of unlearning in which the clean part's loss is bounded, (1 - p^q) / q.
      resplit_round: the epoch of unlearning, from 1, before which the parts are divided anew, and before which it is
        not over; 0 for never.
      relabel_round: the epoch of unlearning, from 1, from which the poisoned part also learns the likeliest other class
        of the network as it was before the epoch, and before which it is not over; 0 for never.
      schedule: of the learning rate over the epochs of unlearning: ``constant`` or ``cosine``.
      crop_padding: pixels of zero padding for random crops, in isolation and unlearning; 0 takes images as they are,
        which keeps triggers whole.
      flip: whether to mirror images at random.
      isolation_rate: learning rate of the fresh network.
      isolation_level: of ``lga`` and ``flooding``, in nats.
      isolated_share: of the images of every class, the first suspects.
      discriminator_rate: learning rate of the retrained last layer.
      discriminator_decay: its weight decay.
      suspect_weight: mu, of the suspects' loss.
      gain: how much better two groups must describe a class than one for it to be attacked, or all classes together, in
        nats: the log of a ratio of likelihoods; and a thousandth of it for every image, with weak reasons more.
      band: images closer to the threshold than this share of its distance from their group's mean are left out; at most
        0.5.
      learning_rate: of unlearning.
      momentum: share of the velocity that stays.
      weight_decay: coefficient of the parameters in the direction, in isolation and unlearning.
      clip_norm: longest gradient.
      unlearning_weight: lambda, of the poisoned part's loss.
      robustness: q of the bounded loss, in (0, 1].
      early: whether unlearning is over sooner than after its rounds, once something is forgotten and recovered.
      forgotten: the mean p_y of the poisoned part is below this then,
      recovered: and the accuracy of the clean part at least this much times that of the model as it came.

    Raises:
      ValueError: if a setting is out of its range, with its name and value.
    """

    rounds: int = 11
    isolation_rounds: int = 0
    batch_size: int = 256
    poisoned_batch_size: int = 64
    prefilter: str = "superposed"
    superpositions: int = 4
    evidence: str = "best"
    thumbnails: bool = True
    all_to_all: bool = True
    discriminator_steps: int = 80
    refinements: int = 0
    loss: str = "complementary"
    weigh: bool = True
    poisoned_statistics: str = "clean"
    robust_rounds: int = 0
    resplit_round: int = 0
    relabel_round: int = 0
    schedule: str = "cosine"
    crop_padding: int = 0
    flip: bool = False
    isolation_rate: Number = 0.01
    isolation_level: Number = 0.5
    isolated_share: Number = 0.05
    discriminator_rate: Number = 0.3
    discriminator_decay: Number = 0.0
    suspect_weight: Number = 1.0
    gain: Number = 60.0
    band: Number = 0.1
    learning_rate: Number = 0.01
    momentum: Number = 0.9
    weight_decay: Number = 5e-4
    clip_norm: Number = 20.0
    unlearning_weight: Number = 1.0
    robustness: Number = 0.7
    early: bool = False
    forgotten: Number = 0.05
    recovered: Number = 1.0

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_whole(1, batch_size=self.batch_size, poisoned_batch_size=self.poisoned_batch_size)
        check_whole(1, rounds=self.rounds, discriminator_steps=self.discriminator_steps)
        check_whole(1 if self.prefilter == "superposed" else 0, superpositions=self.superpositions)
        check_whole(0, refinements=self.refinements, isolation_rounds=self.isolation_rounds)
        check_whole(0, robust_rounds=self.robust_rounds, resplit_round=self.resplit_round)
        check_whole(0, relabel_round=self.relabel_round)
        check_whole(0, crop_padding=self.crop_padding)
        check_at_least(
            0,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            discriminator_decay=self.discriminator_decay,
        )
        check_at_least(0, unlearning_weight=self.unlearning_weight, suspect_weight=self.suspect_weight)
        check_at_least(0, forgotten=self.forgotten, recovered=self.recovered)
        check_positive(learning_rate=self.learning_rate, isolation_rate=self.isolation_rate)
        check_positive(discriminator_rate=self.discriminator_rate, isolation_level=self.isolation_level)
        check_positive(finite=False, clip_norm=self.clip_norm)
        check_at_least(0, gain=self.gain, band=self.band)
        check_share(isolated_share=self.isolated_share, robustness=self.robustness)
        check_in(PREFILTERS, prefilter=self.prefilter)
        check_in(EVIDENCE, evidence=self.evidence)
        check_in(LOSSES, loss=self.loss)
        check_in(STATISTICS, poisoned_statistics=self.poisoned_statistics)
        check_in(("constant", "cosine"), schedule=self.schedule)
        isolates = self.isolation_rounds > 0
        if self.prefilter != "early" and (self.prefilter in ISOLATING) != isolates:
            needed = "at least one" if self.prefilter in ISOLATING else "none"
            raise ValueError(
                f"prefilter={self.prefilter!r} with isolation_rounds={self.isolation_rounds!r} needs {needed}; "
                f"{' and '.join(ISOLATING)} train a fresh network."
            )
        if self.rounds < self.isolation_rounds + 2:
            raise ValueError(
                f"rounds={self.rounds!r} must be at least {self.isolation_rounds + 2}: {self.isolation_rounds} of "
                "isolation, one that divides the images, and at least one of unlearning."
            )
        epochs = self.rounds - self.isolation_rounds - 1
        if self.resplit_round == 1:
            raise ValueError(
                "resplit_round=1 would ask what is forgotten before anything is unlearned; give at least 2, or 0 for "
                "never."
            )
        for name in ("resplit_round", "relabel_round", "robust_rounds"):
            if getattr(self, name) > epochs:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be at most {epochs}, the rounds of unlearning; give more "
                    f"rounds, or {name}=0."
                )
        if isinstance(self.band, int | float) and self.band > 0.5:
            raise ValueError(f"band={self.band!r} must be at most 0.5.")


PRESETS: dict[str, Config] = {
    "default": Config(),
    "quick": Config(early=True),
    "isolating": Config(prefilter="lga", isolation_rounds=10, rounds=21),
    "robust": Config(robust_rounds=3, resplit_round=4),
}
"""``default``: ours. ``quick``: over as soon as the accuracy is what it was, after one to four epochs in place of ten;
the learning rate is high then, and the accuracy about a point lower, at most two. ``isolating``: with a fresh network
whose loss is bent, as in anti-backdoor learning, which takes twenty epochs, a hundredth of all images and a weight
decay of 1e-4. ``robust``: with what is meant to tolerate parts that hold each other's images."""

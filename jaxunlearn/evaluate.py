"""What a classifier does on clean and on triggered images, as counts."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxunlearn import metrics
from jaxunlearn._check import check_classes, check_images, check_whole
from jaxunlearn._runtime import Compiled
from jaxunlearn._typing import AnyImages, ApplyFn, Labels, Variables
from jaxunlearn.attacks.triggers import Trigger
from jaxunlearn.metrics import Count


class Triggered(NamedTuple):
    """Images that carry an attack's trigger already.

    Attributes:
      images: pixels in [0, 1].
      labels: their true classes.
      attack_labels: the class that the attack forces on each.
    """

    images: AnyImages
    labels: Labels
    attack_labels: Labels

    def described(self) -> dict[str, Any]:
        """Their number and a hash of them and both of their labels, for JSON."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(np.ascontiguousarray(array).data)
        return {"images": len(self.labels), "sha256": digest.hexdigest()}


class Evaluation(NamedTuple):
    """How a model answers; ``asr`` and ``ra`` are None where no trigger is known.

    Attributes:
      acc: clean images that get their true class.
      asr: triggered images of other classes that get the target class.
      ra: the same images that get their true class.
    """

    acc: Count
    asr: Count | None
    ra: Count | None

    def counts(self) -> dict[str, list[int] | None]:
        """The counts by name as [hits, total], for JSON."""
        return {name: None if count is None else list(count) for name, count in self._asdict().items()}

    def rates(self) -> dict[str, float | None]:
        """The rates by name, in [0, 1]; None where unknown."""
        return {name: None if count is None else count.rate for name, count in self._asdict().items()}

    @classmethod
    def from_counts(cls, counts: Mapping[str, Any]) -> "Evaluation":
        """Undoes ``counts``; other entries of the mapping are ignored."""
        acc, asr, ra = (None if counts[name] is None else Count(*counts[name]) for name in cls._fields)
        if acc is None:
            raise ValueError("acc is unknown; it is always counted.")
        return cls(acc, asr, ra)


def predict(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    *,
    trigger: Trigger | None = None,
    batch_size: int = 500,
) -> Int[np.ndarray, " n"]:
    """The most likely class of every image, in evaluation mode; -1 where a logit is NaN or infinite.

    Args:
      apply_fn: the network.
      variables: of the network.
      images: pixels in [0, 1]; on the host, on a device, or read batch by batch.
      trigger: applied to the images first.
      batch_size: images at a time; the last batch is padded, so that one program serves all.

    Raises:
      ValueError: if there are no images.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> predict(apply_fn, {}, np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 0.0]])[:, None, None, :]).tolist()
      [0, 1, -1]
    """
    return _predicted(apply_fn, variables, images, trigger=trigger, batch_size=batch_size)[0]


def _predicted(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    *,
    trigger: Trigger | None = None,
    batch_size: int = 500,
) -> tuple[Int[np.ndarray, " n"], int]:
    """What ``predict`` returns, and how many classes there are."""
    count = len(images)
    if count == 0:
        raise ValueError("images holds no image; at least one is needed.")
    size = min(batch_size, count)
    classifier = _classifier(apply_fn)
    predictions = []
    for start in range(0, count, size):
        batch = np.asarray(images[start : start + size])
        padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
        shown = jnp.asarray(padded) if trigger is None else trigger(jnp.asarray(padded))
        if shown.shape != padded.shape:
            raise ValueError(
                f"trigger makes images of shape {shown.shape} of such of shape {padded.shape}; both must be the same."
            )
        answers, classes = classifier(variables, shown)
        predictions.append(np.asarray(answers)[: len(batch)])
    return np.concatenate(predictions), int(classes)


def evaluate(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    labels: Labels,
    *,
    trigger: Trigger | None = None,
    target: int | None = None,
    triggered: Triggered | None = None,
) -> Evaluation:
    """Counts ACC and, where a trigger and its target or triggered images are known, ASR and RA.

    Args:
      apply_fn: the network.
      variables: of the network.
      images: clean images that were not unlearned with.
      labels: their true classes.
      trigger: the attack's trigger.
      target: the attack's class; images of this class are left out of ASR and RA.
      triggered: images with the trigger, in place of trigger and target.

    Raises:
      ValueError: if only one of trigger and target is given, or triggered images beside them, or the images are not
        floating NHWC in [0, 1], or the labels not one for each, or a label or the target is no class of the network.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> images, labels = np.eye(3, dtype=np.float32)[:, None, None, :], np.arange(3)
      >>> brighten_last = lambda x: x.at[..., 2].set(2.0)
      >>> evaluate(apply_fn, {}, images, labels, trigger=brighten_last, target=2).rates()
      {'acc': 1.0, 'asr': 1.0, 'ra': 0.0}
    """
    if (trigger is None) != (target is None):
        raise ValueError("trigger and target belong together; give both or neither.")
    if trigger is not None and triggered is not None:
        raise ValueError("triggered images need no trigger; give one of them.")
    if target is not None:
        check_whole(0, target=target)
    labels = np.asarray(labels)
    check_images(images)
    _check_labels(images, labels)
    answers, classes = _predicted(apply_fn, variables, images)
    check_classes(labels, classes)
    acc = metrics.accuracy(answers, labels)
    forced: Any
    if triggered is not None:
        check_images(triggered.images)
        for kinds in (triggered.labels, triggered.attack_labels):
            _check_labels(triggered.images, kinds)
            check_classes(kinds, classes)
        answers = predict(apply_fn, variables, triggered.images)
        labels, forced = np.asarray(triggered.labels), np.asarray(triggered.attack_labels)
    elif trigger is not None and target is not None:
        if target >= classes:
            raise ValueError(f"target={target} is no class of the network, which has 0 to {classes - 1}.")
        answers, forced = predict(apply_fn, variables, images, trigger=trigger), target
    else:
        return Evaluation(acc, None, None)
    return Evaluation(
        acc,
        metrics.attack_success(answers, labels, forced),
        metrics.recovered_accuracy(answers, labels, forced),
    )


def _check_labels(images: AnyImages, labels: Any) -> None:
    """Labels of another shape would be compared with every answer."""
    if np.shape(labels) != (len(images),):
        raise ValueError(
            f"labels has shape {np.shape(labels)}; expected one integer for each of the {len(images)} images."
        )


@functools.lru_cache(maxsize=16)
def _classifier(apply_fn: ApplyFn) -> Compiled:
    def classified(variables: Variables, images: jax.Array) -> tuple[jax.Array, int]:
        logits, _ = apply_fn(variables, images, train=False)
        answers = jnp.where(jnp.all(jnp.isfinite(logits), axis=1), jnp.argmax(logits, axis=1), -1)
        return answers, logits.shape[1]

    return Compiled(classified)

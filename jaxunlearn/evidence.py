"""What a method's perturbations show about a backdoor, in words and pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxunlearn import report
from jaxunlearn._typing import Variables
from jaxunlearn.evaluate import predict
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence

_SHOWN = 6


def of_one_perturbation(
    inputs: Inputs,
    variables: Variables,
    cleaned: Variables,
    delta: Float[np.ndarray, "h w c"],
    *,
    clip: bool,
) -> Evidence:
    """Where a perturbation that all images share sends test images, before and after; ``clip`` as in the search."""

    def perturb(images: jax.Array) -> jax.Array:
        perturbed = images + jnp.asarray(delta)
        return jnp.clip(perturbed, 0, 1) if clip else perturbed

    shifted = functools.partial(predict, inputs.apply_fn, images=inputs.test.images, trigger=perturb)
    clean, perturbed = predict(inputs.apply_fn, variables, inputs.test.images), shifted(variables)
    moved = perturbed[(perturbed != clean) & (perturbed >= 0)]
    if len(moved) == 0:
        sentence = "no perturbation was found that moves images to another class."
        facts = {"class": None, "share_before": 0.0, "share_after": 0.0, "sentence": sentence}
    else:
        suspect = int(np.bincount(moved).argmax())
        others = clean != suspect
        before = float(np.mean(perturbed[others] == suspect))
        after = float(np.mean(shifted(cleaned)[others] == suspect))
        sentence = (
            f"one perturbation of norm {np.linalg.norm(delta):.2f}, the same for all images, sent "
            f"{100 * before:.1f} % of those of other classes to class {suspect}; after unlearning it sends "
            f"{100 * after:.1f} %."
        )
        facts = {"class": suspect, "share_before": before, "share_after": after, "sentence": sentence}
    example = inputs.test.images[_of_another_class(inputs)[0]]
    picture = report.draw_perturbation(example, delta, inputs.trigger, facts)
    return Evidence(facts, {"perturbation.png": picture})


def of_their_own_perturbations(
    inputs: Inputs,
    variables: Variables,
    cleaned: Variables,
    rows: np.ndarray,
    perturbed: Float[np.ndarray, "n h w c"],
) -> Evidence:
    """Where perturbations of their own send the test images of those rows, before and after."""
    images, labels = inputs.test.images[rows], inputs.test.labels[rows]
    clean, before, after = (
        predict(inputs.apply_fn, v, x)
        for v, x in ((variables, images), (variables, perturbed), (cleaned, perturbed))
    )
    fooled = (before != clean) & (before != labels) & (before >= 0)
    if not np.any(fooled):
        sentence = "no perturbations were found that move images to another class."
        facts = {"class": None, "share_before": 0.0, "share_after": 0.0, "sentence": sentence}
    else:
        suspect = int(np.bincount(before[fooled]).argmax())
        share, still = float(np.mean(fooled)), float(np.mean(fooled & (after == before)))
        towards = float(np.mean(before[fooled] == suspect))
        sentence = (
            f"perturbations of their own sent {100 * share:.1f} % of {len(rows)} images to another class, most often "
            f"({100 * towards:.0f} %) to class {suspect}; after unlearning they send {100 * still:.1f} % there."
        )
        facts = {"class": suspect, "share_before": share, "share_after": still, "sentence": sentence}
    shown = np.argsort(~fooled, kind="stable")[:_SHOWN]
    answers = [f"{a} > {b} > {c}" for a, b, c in zip(clean[shown], before[shown], after[shown], strict=True)]
    picture = report.draw_examples(images[shown], perturbed[shown], answers)
    return Evidence(facts, {"perturbation.png": picture})


def rows_of_other_classes(inputs: Inputs, most: int) -> np.ndarray:
    """The first rows of test images that an attack could send to its class, as far as that is known."""
    return _of_another_class(inputs)[:most]


def _of_another_class(inputs: Inputs) -> np.ndarray:
    return np.flatnonzero(inputs.test.labels != (-1 if inputs.target is None else inputs.target))

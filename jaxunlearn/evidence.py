"""What a method's perturbations show about a backdoor, in words and pictures."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxunlearn import report
from jaxunlearn._typing import Labels, Variables
from jaxunlearn.evaluate import predict
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence

_SHOWN = 6
_COMPARED = 10_000  # test images with a perturbation towards another class, in all
_MOST_COMPARED = 500  # with one of those
_TELLING = 16  # points of a lead: more than of any model without a backdoor, and than of some with one
_ALL = slice(None)


def of_one_perturbation(
    inputs: Inputs,
    variables: Variables,
    cleaned: Variables,
    delta: Float[np.ndarray, "h w c"],
    *,
    clip: bool,
    rivals: Mapping[int, Float[np.ndarray, "h w c"]] | None = None,
) -> Evidence:
    """Where a perturbation that all images share sends test images, before and after.

    Args:
      inputs: of the run.
      variables: of the model as it came.
      cleaned: of the model afterwards.
      delta: the perturbation.
      clip: whether perturbed pixels stay in [0, 1], as in the search.
      rivals: perturbations of the same size, each towards a class. Towards a backdoor's class one leads many more
        images than towards the next, while without a backdoor several lead nearly as many. One that leads more of the
        test images than ``delta``, which may owe its success to the few images it was found with, takes its place.
    """

    def shifted(
        variables: Variables, by: Float[np.ndarray, "h w c"], rows: np.ndarray | slice = _ALL
    ) -> np.ndarray:
        def perturb(images: jax.Array) -> jax.Array:
            perturbed = images + jnp.asarray(by)
            return jnp.clip(perturbed, 0, 1) if clip else perturbed

        return predict(inputs.apply_fn, variables, images=inputs.test.images[rows], trigger=perturb)

    def share(answers: Labels, kind: int, rows: np.ndarray | slice = _ALL) -> float:
        """Of the images of other classes, as the model as it came sees them: those that now get this one."""
        return float(np.mean((answers == kind)[clean[rows] != kind]))

    clean = predict(inputs.apply_fn, variables, inputs.test.images)
    shares: dict[int, float] = {}
    if rivals:
        # Images may lie class by class.
        most = min(_MOST_COMPARED, _COMPARED // len(rivals))
        some = np.sort(np.random.default_rng(0).permutation(len(clean))[:most])
        shares = {
            kind: share(shifted(variables, by, some), kind, some)
            for kind, by in rivals.items()
            if np.any(clean[some] != kind)
        }
        own = shifted(variables, delta, some)
        towards = _most_reached(own, clean[some])
        best = max(shares, key=lambda kind: shares[kind], default=None)
        if best is not None and shares[best] > (0 if towards is None else share(own, towards, some)):
            delta = rivals[best]

    perturbed = shifted(variables, delta)
    suspect = _most_reached(perturbed, clean)
    facts: dict[str, Any]
    if suspect is None:
        sentence = "no perturbation was found that moves images to another class."
        facts = {"class": None, "share_before": 0.0, "share_after": 0.0, "sentence": sentence}
    else:
        before, after = share(perturbed, suspect), share(shifted(cleaned, delta), suspect)
        facts = {
            "class": suspect,
            "norm": float(np.linalg.norm(delta)),
            "share_before": before,
            "share_after": after,
        }
        sentence = (
            f"one perturbation of norm {facts['norm']:.2f}, the same for all images, sent {100 * before:.1f} % of "
            f"those of other classes to class {suspect}"
        )
        shares.pop(suspect, None)
        if shares:
            rival = max(shares, key=lambda kind: shares[kind])
            facts |= {"rival": rival, "rival_share": shares[rival]}
            sentence += f", and the best towards another {100 * shares[rival]:.1f} % to class {rival} ({_lead(facts)})"
        facts["sentence"] = f"{sentence}; after unlearning it sends {100 * after:.1f} %."
    example = inputs.test.images[_of_another_class(inputs)[0]]
    picture = report.draw_perturbation(example, delta, inputs.trigger, facts)
    return Evidence(facts, {"perturbation.png": picture})


def _lead(facts: Mapping[str, Any]) -> str:
    """By how much more images a perturbation leads to its class than the next best to another, and what that tells."""
    lead = round(100 * (facts["share_before"] - facts["rival_share"]))
    return (
        f"a lead of {lead} points, which {'speaks for a backdoor' if lead >= _TELLING else 'proves nothing'}"
    )


def _most_reached(answers: Labels, clean: Labels) -> int | None:
    """The class that most of the images get that got another one before; None where there are no such images."""
    moved = answers[(answers != clean) & (answers >= 0)]
    return int(np.bincount(moved).argmax()) if len(moved) else None


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
    """Some rows, of any class, of test images that an attack could send to its class, as far as that is known."""
    rows = _of_another_class(inputs)
    return np.sort(np.random.default_rng(0).permutation(rows)[:most])


def _of_another_class(inputs: Inputs) -> np.ndarray:
    return np.flatnonzero(inputs.test.labels != (-1 if inputs.target is None else inputs.target))

"""``python -m jaxunlearn.dau``: cleans a PyTorch checkpoint with DAU and the images that it was trained on."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxunlearn import cli, report
from jaxunlearn._loop import Execution, Method
from jaxunlearn._signals import leave
from jaxunlearn._typing import Variables
from jaxunlearn.data import PARTS, LabelledImages, write_division
from jaxunlearn.dau import PRESETS, Config, Parts, RoundStats, State, make_method, quality
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence, Procedure

_SHOWN = 10  # images of a group
_AVERAGED = 500  # images of a group, at most
_CLEAREST = 3  # classes, where none is taken for attacked


def _losses(stats: RoundStats) -> dict[str, float]:
    return {"loss": float(stats.loss), "poisoned": int(stats.poisoned), "kept": float(stats.kept)}


def _evidence(inputs: Inputs, variables: Variables, cleaned: Variables, state: State) -> Evidence:
    """How the training images were divided and, where it is known, how well."""
    del variables, cleaned
    if int(state.round) <= state.config.isolation_rounds:
        sentence = "the training images were not divided, since the run stopped before that."
        return Evidence({"class": None, "classes": [], "sentence": sentence}, {})
    data, given = inputs.clean, inputs.division is not None
    poisoned, clean = (np.asarray(part) for part in state.parts)
    scores, attacked = np.asarray(state.scores), jax.tree.map(np.asarray, state.attacked)
    hit = np.isin(np.arange(state.classes), data.labels[poisoned])
    facts = _facts(inputs, state, poisoned, clean, hit)
    groups = {} if given else {"group": np.where(attacked.smaller, "smaller", "larger")}
    parts = np.where(poisoned, PARTS[0], np.where(clean, PARTS[1], PARTS[2]))
    files = {
        "division.csv": write_division(data, parts, score=[f"{score:.3f}" for score in scores], **groups),
        "division.json": (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode(),
    }
    shown = hit[data.labels]
    if not given:
        truth = None if data.poisoned is None else data.poisoned[shown]
        files["division.png"] = report.draw_division(
            attacked.gains, hit, scores[shown], poisoned[shown], clean[shown], truth
        )
    if poisoned.any():
        clearest = np.argsort(scores, kind="stable")
        rows = (clearest[poisoned[clearest]], clearest[(clean & shown)[clearest]][::-1])
        files["poisoned.png"] = report.draw_samples(
            [
                _sample(data, f"taken for\n{name}", some, np.sort(some[:_SHOWN]))
                for name, some in zip(PARTS, rows, strict=False)
                if len(some)
            ],
            "Training images of the attacked classes, the clearest of either part",
        )
    elif samples := _groups(data, attacked.clearness, attacked.smaller):
        files["groups.png"] = report.draw_samples(
            samples,
            "The classes that fall most clearly into two groups, neither of which is taken for poisoned",
        )
    return Evidence(facts, files)


def _facts(
    inputs: Inputs,
    state: State,
    poisoned: Bool[np.ndarray, " n"],
    clean: Bool[np.ndarray, " n"],
    hit: Bool[np.ndarray, " classes"],
) -> dict[str, Any]:
    """What was found, in numbers and in words; ``hit`` marks classes with poisoned images."""
    labels, truth = inputs.clean.labels, inputs.clean.poisoned
    count, suspect = int(poisoned.sum()), int(state.stats.suspect)
    left_out = len(poisoned) - count - int(clean.sum())
    share = float(np.mean(labels[poisoned] == suspect)) if count else 0.0
    sentence = f"{count} of {len(poisoned)} training images are taken for poisoned"
    if inputs.division is not None:
        sentence += ", as the given division says"
    if not count:
        sentence += "; the model is left as it was"
    elif share >= 0.5:
        sentence += f", {100 * share:.0f} % of them of class {suspect}; {left_out} are left out as doubtful"
    else:
        sentence += f", of {hit.sum()} of {len(hit)} classes; {left_out} are left out as doubtful"
    facts: dict[str, Any] = {
        "class": suspect if share >= 0.5 else None,
        "classes": np.flatnonzero(hit).tolist(),
        "poisoned": count,
        "clean": int(clean.sum()),
        "left_out": left_out,
    }
    if truth is not None:
        known = quality(state.parts, truth)
        facts |= known._asdict()
        precision = "none found" if known.precision is None else f"precision {100 * known.precision:.1f} %"
        recall = "there is no poison" if known.recall is None else f"recall {100 * known.recall:.1f} %"
        sentence += f" ({precision}, {recall})"
    gains, clearness = (np.asarray(each, float) for each in (state.attacked.gains, state.attacked.clearness))
    if not count and np.max(clearness) > 0:
        sentence += (
            f". Class {np.argmax(clearness)} falls into two groups most clearly, by {np.max(clearness):.0f} nats, as "
            "clean classes do, too; if one of the groups in groups.png is poisoned, mark its images in division.csv "
            "and give that back with --division"
        )
    facts["sentence"] = sentence + "."
    if inputs.division is None:
        facts["gains"], facts["clearness"] = (
            [round(float(number), 1) for number in each] for each in (gains, clearness)
        )
    return facts


def _groups(
    data: LabelledImages, clearness: Float[np.ndarray, " classes"], smaller: Bool[np.ndarray, " n"]
) -> list[report.Sample]:
    """The two groups of each of the clearest classes."""
    samples = []
    for number in np.argsort(-clearness, kind="stable")[:_CLEAREST]:
        of_class = data.labels == number
        for name, group in (("larger", of_class & ~smaller), ("smaller", of_class & smaller)):
            if clearness[number] > 0 and group.any():
                samples.append(_sample(data, f"class {number}\n{name}", np.flatnonzero(group)))
    return samples


def _sample(
    data: LabelledImages, name: str, rows: Int[np.ndarray, " k"], shown: Int[np.ndarray, " m"] | None = None
) -> report.Sample:
    """The group's images ``rows``, of which ``shown`` are shown, or some from all over it."""
    averaged = np.sort(_spread(rows, _AVERAGED))
    mean = np.mean(np.asarray(data.images[averaged]), axis=0)
    shown = _spread(rows, _SHOWN) if shown is None else shown
    return report.Sample(f"{name} ({len(rows)})", mean, np.asarray(data.images[shown]))


def _spread(rows: Int[np.ndarray, " k"], most: int) -> Int[np.ndarray, " m"]:
    """At most so many of the rows, equally far apart."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def _stages(config: Config) -> int:
    return config.isolation_rounds + 1


def _method(inputs: Inputs, execution: Execution) -> Method:
    given = None if inputs.division is None else np.array(inputs.division)
    return make_method(
        inputs.apply_fn,
        execution,
        head=inputs.model.spec.head,
        fresh=inputs.model.spec.init,
        early=None if inputs.early is None else inputs.early.variables,
        parts=None if given is None else Parts(*(jnp.asarray(given == part) for part in PARTS[:2])),
    )


PROCEDURE: Procedure = Procedure(
    "dau",
    _method,
    _losses,
    _evidence,
    lambda _: (1.0,),
    _stages,
)


def main(argv: list[str] | None = None) -> Any:
    """Runs the command line and returns the exit code."""
    return cli.main(
        PROCEDURE,
        PRESETS,
        "Removes backdoors from an image classifier with DAU, given the images that it was trained on. A "
        "reconstruction: of DAU only an abstract is published.",
        argv,
    )


if __name__ == "__main__":
    leave(main())

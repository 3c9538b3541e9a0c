"""``python -m jaxunlearn.dau``: cleans a PyTorch checkpoint with DAU and the images that it was trained on."""

import csv
import io
import json
import sys
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxunlearn import cli, report
from jaxunlearn._typing import Variables
from jaxunlearn.data import LabelledImages
from jaxunlearn.dau import PRESETS, Config, RoundStats, State, make_method, quality
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence, Procedure

_SHOWN = 10  # images of either part


def _losses(stats: RoundStats) -> dict[str, float]:
    return {"loss": float(stats.loss), "poisoned": int(stats.poisoned), "kept": float(stats.kept)}


def _evidence(inputs: Inputs, variables: Variables, cleaned: Variables, state: State) -> Evidence:
    """How the training images were divided and, where it is known, how well."""
    del variables, cleaned
    poisoned, clean = (np.asarray(part) for part in state.parts)
    count, suspect = int(poisoned.sum()), int(state.stats.suspect)
    left_out = len(poisoned) - count - int(clean.sum())
    sentence = f"{count} of {len(poisoned)} training images are taken for poisoned"
    gains, labels = np.asarray(state.gains), inputs.clean.labels
    attacked = np.isin(np.arange(len(gains)), labels[poisoned])
    share = float(np.mean(labels[poisoned] == suspect)) if count else 0.0
    if not count:
        sentence += "; the model is left as it was"
        if np.max(gains) > 0:
            most = f"class {np.argmax(gains)} falls into two groups most clearly, by {np.max(gains):.0f} nats"
            sentence += f" ({most}, which clean classes do as well)"
    elif share >= 0.5:
        sentence += f", {100 * share:.0f} % of them of class {suspect}; {left_out} are left out as doubtful"
    else:
        sentence += f", of {attacked.sum()} of {len(gains)} classes; {left_out} are left out as doubtful"
    facts: dict[str, Any] = {
        "class": suspect if share >= 0.5 else None,
        "classes": np.flatnonzero(attacked).tolist(),
        "poisoned": count,
        "clean": int(clean.sum()),
        "left_out": left_out,
    }
    truth = inputs.clean.poisoned
    if truth is not None:
        known = quality(state.parts, truth)
        facts |= known._asdict()
        precision = "none found" if known.precision is None else f"precision {100 * known.precision:.1f} %"
        recall = "there is no poison" if known.recall is None else f"recall {100 * known.recall:.1f} %"
        sentence += f" ({precision}, {recall})"
    facts["sentence"] = sentence + "."
    facts["gains"] = [round(float(gain), 1) for gain in gains]
    shown, scores = attacked[labels], np.asarray(state.scores)
    picture = report.draw_division(
        gains,
        attacked,
        scores[shown],
        poisoned[shown],
        clean[shown],
        None if truth is None else truth[shown],
    )
    files = {
        "division.png": picture,
        "division.csv": _table(inputs.clean, poisoned, clean, scores),
        "division.json": (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode(),
    }
    if count:
        clearest = np.argsort(scores, kind="stable")
        parts = (clearest[poisoned[clearest]], clearest[(clean & shown)[clearest]][::-1])
        files["poisoned.png"] = report.draw_parts(
            *(np.asarray(inputs.clean.images[np.sort(rows[:_SHOWN])]) for rows in parts)
        )
    return Evidence(facts, files)


def _table(
    data: LabelledImages,
    poisoned: Bool[np.ndarray, " n"],
    clean: Bool[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
) -> bytes:
    """CSV with a line for every image: its row in its source, what it is called there, and how it was divided."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "image", "label", "part", "score"])
    parts = np.where(poisoned, "poisoned", np.where(clean, "clean", "left out"))
    for index, (label, part, score) in enumerate(zip(data.labels, parts, scores, strict=True)):
        writer.writerow([data.rows[index], data.name_of(index), label, part, f"{score:.3f}"])
    return buffer.getvalue().encode(errors="surrogateescape")  # names as the file system has them


def _stages(config: Config) -> int:
    return config.isolation_rounds + 1


PROCEDURE: Procedure = Procedure(
    "dau",
    lambda inputs, execution: make_method(
        inputs.apply_fn, execution, head=inputs.model.spec.head, fresh=inputs.model.spec.init
    ),
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
    sys.exit(main())

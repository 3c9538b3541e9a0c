"""What a run leaves behind besides the model: a report and pictures. The only importer of matplotlib."""

import io
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxunlearn.attacks import Trigger
from jaxunlearn.evaluate import Evaluation
from jaxunlearn.metrics import defense_effectiveness
from jaxunlearn.models import ModelSpec

_PACKAGES = ("jaxunlearn", "jax", "jaxlib", "jaxopt", "flax", "optax", "numpy", "torch")
_RGB = 3
_COLOURS = {"acc": "#2a6fbb", "asr": "#c43c39", "ra": "#3a9a5b"}


def assemble(
    *,
    checkpoint: str,
    key: str | None,
    method: str,
    preset: str,
    config: Mapping[str, Any],
    seed: int,
    spec: ModelSpec,
    before: Evaluation,
    after: Evaluation,
    rounds: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, Any],
    reactivation: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Any],
    input_sha256: str,
    output_sha256: str,
    seconds: Mapping[str, float],
    preprocessing: Mapping[str, Any],
    notices: Sequence[str],
    warnings: Sequence[str],
    stopped: str | None,
    files: Sequence[str],
) -> dict[str, Any]:
    """The content of ``report.json``: rates in [0, 1], counts as [hits, total], times in seconds.

    ``checkpoint`` is the cleaned file as it was named, and ``key`` that of the state dict in it; None for a bare one.
    """
    return {
        "checkpoint": checkpoint,
        "key": key,
        "method": method,
        "preset": preset,
        "config": plain(config),
        "seed": seed,
        "architecture": {"name": spec.name, "image_shape": list(spec.image_shape), "classes": spec.classes},
        "preprocessing": dict(preprocessing),
        "before": rates_and_counts(before),
        "after": rates_and_counts(after),
        "der": der(before, after),
        "evidence": dict(evidence),
        "reactivation": [dict(entry) for entry in reactivation],
        "rounds": [{**entry, **rates_and_counts(Evaluation.from_counts(entry))} for entry in rounds],
        "images": {name: inputs[name] for name in ("clean", "test", "triggered")},
        "division": inputs["division"],
        "early": inputs["early"],
        "trigger": inputs["trigger"],
        "target": inputs["target"],
        "input_sha256": input_sha256,
        "output_sha256": output_sha256,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory_mib": peak_memory_mib(),
        "device": inputs["device"],
        "versions": inputs["versions"],
        "notices": list(notices),
        "warnings": list(warnings),
        "stopped": stopped,
        "files": list(files),
    }


def der(before: Evaluation, after: Evaluation) -> float | None:
    """The defense effectiveness rating, where both attack success rates are known."""
    if before.asr is None or after.asr is None:
        return None
    return defense_effectiveness(before.acc.rate, after.acc.rate, before.asr.rate, after.asr.rate)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they stand in a report: JSON has no infinity, which is a text there.

    Example:
      >>> plain({"rounds": 5, "radius": math.inf})
      {'rounds': 5, 'radius': 'inf'}
    """
    infinite = {name for name, value in config.items() if isinstance(value, float) and math.isinf(value)}
    return {name: "inf" if name in infinite else value for name, value in config.items()}


def rates_and_counts(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as it stands in a report."""
    return {**evaluation.rates(), "counts": evaluation.counts()}


def device() -> str:
    """The device that computes."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"cpu, {os.cpu_count()} cores ({platform.machine()})"
    return f"{first.platform}, {jax.device_count()} x {first.device_kind}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def peak_memory_mib() -> int | None:
    """The largest resident memory of this process, where the system tells it."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10))


def draw_curves(before: Evaluation, rounds: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of ACC, ASR and RA over the rounds."""
    figure, axes = new_figure(6.4, 3.8)
    points = [
        before,
        *map(Evaluation.from_counts, rounds),
    ]
    labels = {"acc": "ACC, clean accuracy", "asr": "ASR, attack success", "ra": "RA, recovered accuracy"}
    for name, label in labels.items():
        counts = [getattr(point, name) for point in points]
        if counts[0] is None:
            continue
        values = [100 * count.rate for count in counts]
        axes.plot(range(len(values)), values, "o-", color=_COLOURS[name], label=label)
        axes.annotate(
            f"{values[-1]:.1f}",
            (len(values) - 1, values[-1]),
            textcoords="offset points",
            xytext=(8, -4),
            color=_COLOURS[name],
        )
    axes.set_xticks(range(len(points)), ["before", *(str(entry["round"]) for entry in rounds)])
    axes.set_xlim(-0.2, len(points) - 0.6)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("round")
    axes.set_ylabel("percent of images")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)
    return to_png(figure)


def draw_perturbation(
    example: Float[np.ndarray, "h w c"],
    perturbation: Float[np.ndarray, "h w c"],
    trigger: Trigger | None,
    evidence: Mapping[str, Any],
) -> bytes:
    """A PNG of the perturbation that was found on the model as it came.

    Shown are an image, the same image perturbed, the perturbation (grey is zero), its strength per pixel
    and, where a trigger is known, what that trigger changes.
    """
    delta = np.asarray(perturbation, np.float64)
    largest = max(float(np.abs(delta).max()), 1e-12)
    strength = np.sqrt(np.sum(delta**2, axis=-1))
    found = evidence["class"] is not None
    sent = (
        f"sends {100 * evidence['share_before']:.0f} % to class {evidence['class']}"
        if found
        else "moves none"
    )
    if "rival" in evidence:
        sent += (
            f", the best towards another {100 * evidence['rival_share']:.0f} % to class {evidence['rival']}"
        )
    panels: list[tuple[str, np.ndarray, str | None]] = [
        ("an image", example, None),
        ("perturbed", np.clip(example + delta, 0, 1), None),
        (f"the perturbation\n(times {0.5 / largest:.2g}, grey is zero)", 0.5 + delta * (0.5 / largest), None),
        ("its strength", strength, "magma"),
    ]
    if trigger is not None:
        change = np.asarray(trigger(jnp.asarray(example[None]))[0]) - example
        panels.append(("what the known\ntrigger changes", np.sqrt(np.sum(change**2, axis=-1)), "magma"))
    figure, all_axes = new_figure(2.1 * len(panels), 2.9, columns=len(panels))
    for axes, (title, picture, colours) in zip(all_axes, panels, strict=True):
        _show(axes, picture, title, colours)
    figure.suptitle(
        f"Round 1: one perturbation of norm {np.linalg.norm(delta):.3g} for all images {sent}", fontsize=10
    )
    return to_png(figure)


def draw_examples(
    images: Float[np.ndarray, "n h w c"],
    perturbed: Float[np.ndarray, "n h w c"],
    titles: Sequence[str],
    *,
    names: tuple[str, str, str] = ("image", "added", "perturbed"),
    heading: str = "Answers: clean > perturbed > perturbed, after unlearning",
    gain: float | None = None,
) -> bytes:
    """A PNG of images, what was added to each, and their sums; the titles are the answers to them.

    What was added is shown ``gain`` times around grey; if None, as strongly as fits.
    """
    delta = perturbed - images
    gain = 0.5 / max(float(np.abs(delta).max()), 1e-12) if gain is None else gain
    figure, grid = new_figure(1.4 * len(images) + 0.6, 5.0, columns=len(images), rows=3)
    for column, (axes, title) in enumerate(zip(grid.reshape(3, -1).T, titles, strict=True)):
        _show(axes[0], images[column], title)
        _show(axes[1], np.clip(0.5 + delta[column] * gain, 0, 1))
        _show(axes[2], np.clip(perturbed[column], 0, 1))
    first, second, third = names
    for axis, text in zip(
        grid.reshape(3, -1)[:, 0], (first, f"{second}\n(times {gain:.2g})", third), strict=True
    ):
        axis.set_ylabel(text, fontsize=9)
    figure.suptitle(heading, fontsize=10)
    return to_png(figure)


def draw_scores(scores: Float[np.ndarray, " n"], suspects: Bool[np.ndarray, " n"], threshold: float) -> bytes:
    """A PNG of the robust z-score of every class; those above the threshold are suspicious."""
    figure, axes = new_figure(6.4, 3.2)
    axes.bar(range(len(scores)), scores, color=np.where(suspects, _COLOURS["asr"], "#9aa7b5"))
    axes.axhline(threshold, color="black", linewidth=0.8, linestyle="--")
    axes.text(len(scores) - 0.4, threshold, f" threshold {threshold:g}", va="bottom", ha="right", fontsize=9)
    axes.set_xlabel("class")
    axes.set_ylabel("z-score")
    axes.set_title("How far unlearning moved the weights of every class", fontsize=10)
    return to_png(figure)


def draw_division(
    gains: Float[np.ndarray, " classes"],
    attacked: Bool[np.ndarray, " classes"],
    scores: Float[np.ndarray, " n"],
    found: Bool[np.ndarray, " n"],
    kept: Bool[np.ndarray, " n"],
    poisoned: Bool[np.ndarray, " n"] | None,
) -> bytes:
    """A PNG of which classes fall into two groups and, of those that are attacked, how their images are divided.

    Args:
      gains: of every class, how much better a poisoned and a clean group describe it than one, in nats.
      attacked: marks the classes that hold poisoned images.
      scores: of images of those, -1 where they look poisoned and 1 where they do not.
      found: marks the images that are taken for poisoned.
      kept: marks those that are taken for clean; the others are left out.
      poisoned: marks those that are, where that is known.
    """
    figure, (left, right) = new_figure(9.6, 3.4, columns=2)
    colours = np.where(attacked, _COLOURS["asr"], "#9aa7b5")
    left.bar(np.arange(len(gains)), np.maximum(gains, 0), color=colours)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_xlabel("class")
    left.set_ylabel("nats")
    left.set_title("How clearly a class falls into a poisoned and a clean group", fontsize=10)
    if not len(scores):
        right.set_axis_off()
        right.text(0.5, 0.5, "no class is taken for attacked", ha="center", transform=right.transAxes)
        return to_png(figure)
    if poisoned is None:
        named = [
            ("taken for clean", kept, "#9aa7b5"),
            ("left out", ~kept & ~found, "#e0a030"),
            ("taken for poisoned", found, _COLOURS["asr"]),
        ]
    else:
        named = [
            ("clean, not taken for poisoned", ~poisoned & ~found, _COLOURS["acc"]),
            ("clean, taken for poisoned", ~poisoned & found, "#8a63b5"),
            ("poisoned, not found", poisoned & ~found, "#e0a030"),
            ("poisoned, found", poisoned & found, _COLOURS["asr"]),
        ]
    right.hist(
        [scores[marked] for _, marked, _ in named],
        bins=np.linspace(float(scores.min()) - 0.1, float(scores.max()) + 0.1, 61),
        color=[colour for *_, colour in named],
        label=[f"{name} ({int(marked.sum())})" for name, marked, _ in named],
        stacked=True,
    )
    # Room above the bars, which may be high anywhere.
    right.set_ylim(top=(1.2 + 0.12 * len(named)) * right.get_ylim()[1])
    right.legend(frameon=False, fontsize=9, loc="upper center")
    right.set_xlabel("score: -1 and 1 are the groups' means")
    right.set_ylabel("images")
    right.set_title(
        "Training images of the attacked " + ("class" if attacked.sum() == 1 else "classes"), fontsize=10
    )
    return to_png(figure)


class Sample(NamedTuple):
    """Some images of a group.

    Attributes:
      name: of the group.
      mean: of its images.
      images: some of them.
    """

    name: str
    mean: Float[np.ndarray, "h w c"]
    images: Float[np.ndarray, "n h w c"]


def draw_samples(samples: Sequence[Sample], heading: str) -> bytes:
    """A PNG with a row for every group: the mean of its images, where whatever they share stands out, and some."""
    columns = 1 + max(len(sample.images) for sample in samples)
    figure, grid = new_figure(
        1.1 * columns + 0.8, 0.5 + 1.2 * len(samples), columns=columns, rows=len(samples)
    )
    for number, (row, sample) in enumerate(zip(np.atleast_2d(grid), samples, strict=True)):
        row[0].set_ylabel(sample.name, fontsize=9)
        _show(row[0], sample.mean, "" if number else "mean")
        for axes, image in zip(row[1:], sample.images, strict=False):
            _show(axes, image)
        for axes in row[1 + len(sample.images) :]:
            axes.set(xticks=[], yticks=[], frame_on=False)
    figure.suptitle(heading, fontsize=10)
    return to_png(figure)


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A figure that is laid out by itself, and its axes; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def to_png(figure: Any) -> bytes:
    """The figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _show(axes: Any, picture: np.ndarray, title: str = "", colours: str | None = None) -> None:
    """Draws pixels in [0, 1], the mean of the channels in grey where they are not three, or a map in colours."""
    if colours is None and picture.shape[-1] != _RGB:
        picture, colours = picture.mean(axis=-1), "gray"
    limits = {"vmin": 0, "vmax": 1} if colours == "gray" else {}
    axes.imshow(picture, cmap=colours, interpolation="nearest", **limits)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])

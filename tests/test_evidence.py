"""What is said of a backdoor, from perturbations that are known."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxunlearn import evidence
from tests.checker import unchecked

COUNT = 300


def _apply_fn(variables: Any, images: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
    """Answers with the brightest channel."""
    del train
    return images.mean((1, 2)) * variables["w"], {}


def _of(images: np.ndarray, labels: np.ndarray) -> Any:
    """What evidence reads of a run's inputs."""
    return SimpleNamespace(
        apply_fn=_apply_fn, test=SimpleNamespace(images=images, labels=labels), trigger=None, target=None
    )


def _told(
    monkeypatch: pytest.MonkeyPatch, delta: np.ndarray, rivals: dict[int, np.ndarray] | None
) -> dict[str, Any]:
    """The facts about images of three classes, by a network whose cleaned variables answer with class 0 always."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, COUNT)
    images = (np.eye(3)[labels] * rng.uniform(0.2, 1, (COUNT, 1)))[:, None, None].astype(np.float32)
    monkeypatch.setattr(evidence.report, "draw_perturbation", lambda *_: b"")
    monkeypatch.setattr(evidence, "_of_another_class", lambda _: np.arange(1))
    inputs = _of(images, labels)
    before, after = ({"w": np.array(w, np.float32)} for w in ([1, 1, 1], [1, 0, 0]))
    found = unchecked(evidence.of_one_perturbation)(inputs, before, after, delta, clip=False, rivals=rivals)
    assert found.files == {"perturbation.png": b""}
    return found.facts


def _towards(kind: int, size: float) -> np.ndarray:
    return (size * np.eye(3)[kind])[None, None].astype(np.float32)


def test_the_class_is_that_to_which_most_images_are_led(monkeypatch: pytest.MonkeyPatch) -> None:
    """A perturbation may owe its success to the few images that it was found with."""
    rivals = {0: _towards(0, 0.3), 1: _towards(1, 0.6), 2: _towards(2, 0.9)}
    for suspected in rivals.values():
        facts = _told(monkeypatch, suspected, rivals)
        assert (facts["class"], facts["rival"]) == (2, 1)
        assert facts["share_before"] > facts["rival_share"] > 0.3
        assert facts["norm"] == pytest.approx(0.9)
        assert facts["share_after"] == 0
        assert "to class 2, and the best towards another" in facts["sentence"]


@pytest.mark.parametrize(
    ("size", "said"),
    [(0.6, "points, which speaks for a backdoor)"), (0.89, "points, which proves nothing)")],
)
def test_a_large_lead_speaks_for_a_backdoor(monkeypatch: pytest.MonkeyPatch, size: float, said: str) -> None:
    facts = _told(monkeypatch, _towards(2, 0.9), {1: _towards(1, size), 2: _towards(2, 0.9)})
    lead = 100 * (facts["share_before"] - facts["rival_share"])
    assert f"(a lead of {lead:.0f} {said}" in facts["sentence"]


def test_one_perturbation_without_others_is_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _told(monkeypatch, _towards(1, 0.6), None)
    assert facts["class"] == 1
    assert "rival" not in facts
    assert facts["share_before"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("rivals", [None, {kind: _towards(kind, 0.0) for kind in range(3)}])
def test_a_perturbation_that_leads_nowhere_names_no_class(
    monkeypatch: pytest.MonkeyPatch, rivals: dict[int, np.ndarray] | None
) -> None:
    facts = _told(monkeypatch, _towards(1, 0.0), rivals)
    assert facts["class"] is None
    assert facts["sentence"] == "no perturbation was found that moves images to another class."


def test_where_the_one_that_is_suspected_leads_nowhere_another_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = _told(monkeypatch, _towards(1, 0.0), {1: _towards(1, 0.0), 2: _towards(2, 0.6)})
    assert (facts["class"], facts["rival"], facts["rival_share"]) == (2, 1, 0.0)


def test_shares_are_of_images_of_other_classes_and_of_pixels_as_they_were_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of four images one is of the class itself; clipped to [0, 1] the perturbation reaches one of three, else all."""
    monkeypatch.setattr(evidence.report, "draw_perturbation", lambda *_: b"")
    monkeypatch.setattr(evidence, "_of_another_class", lambda _: np.arange(1))
    images = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0], [0.9, 0, 0]], np.float32)[:, None, None]
    inputs, variables = _of(images, np.array([2, 0, 0, 0])), {"w": np.ones(3, np.float32)}
    told = {
        clip: unchecked(evidence.of_one_perturbation)(
            inputs, variables, variables, _towards(2, 2.0), clip=clip
        ).facts
        for clip in (True, False)
    }
    assert [told[clip]["class"] for clip in (True, False)] == [2, 2]
    assert told[True]["share_before"] == told[True]["share_after"] == pytest.approx(1 / 3)
    assert told[False]["share_before"] == 1


def test_perturbations_of_their_own_are_told_of_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five images go to class 2 and one to class 1; afterwards one of each still does."""
    drawn: list[Any] = []
    monkeypatch.setattr(evidence.report, "draw_examples", lambda *given: drawn.append(given) or b"")
    clean = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1]]
    shown = np.array([[0, 0, 9], [0, 1, 5], [0, 4, 0], [0, 9, 0], [9, 0, 0]], np.float32)
    inputs = _of(clean[:, None, None], np.array([0, 0, 0, 1, 0]))
    before, after = ({"w": np.array(w, np.float32)} for w in ([1, 1, 1], [1, 9, 1]))
    found = unchecked(evidence.of_their_own_perturbations)(
        inputs, before, after, np.arange(5), shown[:, None, None]
    )
    told = {name: found.facts[name] for name in ("class", "share_before", "share_after")}
    assert told == {"class": 2, "share_before": 3 / 5, "share_after": 2 / 5}
    assert "(67 %) to class 2" in found.facts["sentence"]
    assert drawn[0][2][:3] == ["0 > 2 > 2", "0 > 2 > 1", "0 > 1 > 1"]

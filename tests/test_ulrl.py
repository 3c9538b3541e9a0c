"""The two phases of ULRL and what lies between them."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import _loop, ulrl
from jaxunlearn._check import InputError
from jaxunlearn.ulrl import __main__ as program
from tests import toys
from tests.checker import unchecked

KEY = jax.random.key(3)
CONFIG = ulrl.Config(rounds=5, unlearning_rounds=4, batch_size=8, stop_accuracy=0.0)


def states(**changes: Any) -> tuple[list[ulrl.State], list[ulrl.RoundStats]]:
    """State and statistics after every round on the toy problem."""
    config = dataclasses.replace(CONFIG, **changes)
    method = ulrl.make_method(toys.apply_fn, ulrl.Execution(loop="host"), head="head")
    data = ulrl.Data(*map(jnp.asarray, toys.images_and_labels()))
    state = method.init(toys.variables(), data, config, KEY)
    rounds = list(_loop.rounds(method, state, data, 1, config.rounds))
    return [state for _, state, _ in rounds], [stats for _, _, stats in rounds]


def assert_equal(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_ascent_raises_the_loss_and_relearning_lowers_it() -> None:
    _, stats = states(rounds=8, unlearning_rate=0.1, learning_rate=0.1)
    ascent = [float(s.loss) for s in stats[:4]]
    assert ascent == sorted(ascent)
    assert stats[-1].loss < stats[4].loss < ascent[-1]


def test_unlearning_stops_at_its_accuracy() -> None:
    stopped, stats = states(stop_accuracy=1.0)
    assert_equal(stopped[0].params, stopped[2].params)
    assert len({float(s.loss) for s in stats[:4]}) == 1
    # What follows the stop changes nothing: one round of unlearning finds the same scores.
    assert_equal(stopped[3].scores, states(stop_accuracy=1.0, unlearning_rounds=1)[0][0].scores)
    going, _ = states()
    assert not np.array_equal(going[3].scores["params/head"], stopped[3].scores["params/head"])


def test_relearning_starts_from_the_network_as_it_came() -> None:
    after, _ = states(threshold=1e9)
    assert_equal({"params": after[3].params["params"]}, {"params": toys.variables()["params"]})
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(after[3].velocity))


def test_the_result_is_the_original_until_relearning_begins() -> None:
    after, _ = states()
    for state in after[:4]:
        assert_equal(ulrl.finish(state), toys.variables())
    assert not np.array_equal(ulrl.finish(after[4])["params"]["head"], toys.variables()["params"]["head"])


def test_the_class_that_moved_farthest_is_named() -> None:
    after, stats = states(threshold=1e-6, most=1)
    scores = after[-1].scores["params/head"]
    assert scores.shape == (toys.CLASSES,)
    assert int(stats[-1].suspect) == int(jnp.argmax(scores))
    assert int(stats[-1].found) == 1
    np.testing.assert_allclose(stats[-1].z, jnp.max(ulrl.mad_outliers(scores, 3.5).z), rtol=1e-6)
    assert [int(s.suspect) for s in stats[:3]] == [-1] * 3


def test_without_a_suspect_relearning_is_fine_tuning() -> None:
    after, stats = states(threshold=1e9)
    assert (int(stats[-1].suspect), int(stats[-1].found)) == (-1, 0)
    other, _ = states(threshold=1e9, penalty=5.0)
    assert_equal(after[-1].params, other[-1].params)
    suspected, _ = states(threshold=1e-6)
    assert not np.array_equal(
        suspected[-1].params["params"]["head"],
        states(threshold=1e-6, penalty=5.0)[0][-1].params["params"]["head"],
    )


def test_all_layers_are_scored_on_demand() -> None:
    after, stats = states(layers="all", threshold=0.1, most=1)
    assert list(after[-1].scores) == ["params/head", "params/kernel"]
    assert after[-1].scores["params/kernel"].shape == (4,)
    assert int(stats[-1].found) == 2


def test_the_row_of_a_frequent_class_stays() -> None:
    share = float(np.mean(toys.images_and_labels()[1] == 0))
    found = [
        states(layers="all", threshold=0.01, most=3, largest_share=most)[0][-1] for most in (0.01, share, 1.0)
    ]
    rows = [np.asarray(after.suspects["params/head"]) for after in found]
    assert not rows[0].any()
    assert rows[2].any()
    counts = np.bincount(toys.images_and_labels()[1], minlength=toys.CLASSES) / 20
    np.testing.assert_array_equal(rows[1], rows[2] & (counts <= share))


def test_hidden_layers_are_drawn_anew_and_the_class_is_named_all_the_same() -> None:
    after, stats = states(layers="hidden", threshold=0.1, most=1)
    started, original = after[3].params["params"], toys.variables()["params"]
    assert_equal(started["head"], original["head"])
    assert np.any(started["kernel"] != original["kernel"], axis=(0, 1, 2)).sum() == 1
    assert int(stats[-1].found) == 1
    assert int(stats[-1].suspect) == int(jnp.argmax(after[-1].scores["params/head"]))


@pytest.mark.parametrize("relearning", ["train", "eval"])
def test_trials_choose_the_learning_rate_by_the_loss(relearning: str) -> None:
    _, stats = states(learning_rate=0.1, trials=3, relearning=relearning)
    np.testing.assert_allclose([s.rate for s in stats], 0.1, rtol=1e-6)  # the larger the better, here
    after, stats = states(learning_rate=3e3, trials=8, relearning=relearning)
    assert stats[2].rate == 3e3  # not yet chosen
    chosen = float(stats[3].rate)
    assert np.isclose(3e3 / chosen, 3 ** np.round(np.log(3e3 / chosen) / np.log(3)))
    assert chosen < 1e3
    assert float(after[-1].config.learning_rate) == chosen


@pytest.mark.parametrize("count", [9, 20])
def test_padding_is_made_of_other_images_of_the_set(count: int) -> None:
    rows = _loop.batch_rows(count, 8, KEY)
    assert int(rows.mask.sum()) == count
    assert sorted(np.asarray(rows.members)[np.asarray(rows.mask)].tolist()) == list(range(count))
    for members in np.asarray(rows.members):
        assert len(set(members.tolist())) == len(members)


def test_a_head_counts_the_classes_in_its_last_axis() -> None:
    def transposed(params: Any, images: Any, *, train: bool) -> Any:
        features = images.mean((1, 2)) @ params["hidden"]
        return features @ params["fc"].T, {}

    images, labels = toys.images_and_labels(8)
    params = {"hidden": jnp.ones((1, 5)), "fc": jnp.ones((3, 5))}
    config = ulrl.Config(rounds=2, unlearning_rounds=1)
    with pytest.raises(InputError, match=r"shape \(3, 5\) and the network has 3 classes"):
        ulrl.unlearn(transposed, params, images, labels, config, jax.random.key(0), head="fc")


def test_hidden_layers_have_to_be_called_kernels() -> None:
    def nameless(params: Any, images: Any, *, train: bool) -> Any:
        return images.mean((1, 2)) @ params["w1"] @ params["w2"], {}

    images, labels = toys.images_and_labels(8)
    params = {"w1": jnp.ones((1, 5)), "w2": jnp.ones((5, 3))}
    config = ulrl.PRESETS["default"]
    with pytest.raises(InputError, match="only the last one has a leaf that is called kernel"):
        ulrl.unlearn(nameless, params, images, labels, config, jax.random.key(0), head="w2")


def test_classes_are_named_by_how_far_they_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """None where none moved farther than others, or where the run ended before they were compared."""
    monkeypatch.setattr(program.report, "draw_scores", lambda *_: b"")
    inputs = SimpleNamespace(model=SimpleNamespace(spec=SimpleNamespace(head="head")))
    monkeypatch.setattr(program, "head_kernel", lambda *_: "kernel")

    def told(scores: list[float], now: int = 5) -> Any:
        state = SimpleNamespace(
            config=CONFIG,
            round=jnp.asarray(now),
            scores={"kernel": jnp.array(scores)},
            suspects={"kernel": jnp.array(scores) > 2, "other": jnp.ones(7, bool)},
        )
        return unchecked(program.PROCEDURE.evidence)(inputs, {}, {}, state).facts

    usual = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02]
    found = told([*usual, 5.0, 9.0])
    assert (found["class"], found["classes"], found["neurons_of_other_layers"]) == (7, [7, 6], 7)
    assert "moved the weights of class 7 (z-score" in found["sentence"]
    assert "; 2 rows of the last layer and 7 neurons of others were" in found["sentence"]
    alike = told(usual)
    assert (alike["class"], alike["classes"]) == (None, [])
    assert alike["sentence"].startswith("no class stands out")
    assert told([0.0] * 6, now=3) == {
        "class": None,
        "classes": [],
        "sentence": "unlearning ended before the classes were compared; nothing is known of them.",
    }

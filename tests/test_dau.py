"""DAU: its identities, its division of a training set, and what unlearning keeps and forgets."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import dau, demo, evaluate
from jaxunlearn._check import InputError
from jaxunlearn.attacks import Attack, poison
from jaxunlearn.data import load
from jaxunlearn.dau import __main__ as dau_main
from tests import toys
from tests.checker import unchecked

KEY = jax.random.key(0)


def gradient_of(kind: str, logits: jax.Array, label: int) -> np.ndarray:
    def loss_fn(z: jax.Array) -> jax.Array:
        return dau.poisoned_losses(z[None], jnp.array([label]), kind)[0]

    return np.asarray(jax.grad(loss_fn)(logits))


@pytest.mark.parametrize("seed", range(5))
def test_complementary_gradient_is_that_of_ascent_times_the_odds(seed: int) -> None:
    with jax.enable_x64(True):
        logits = 3 * jax.random.normal(jax.random.key(seed), (7,), jnp.float64)
        p = jax.nn.softmax(logits)[2]
        ours, ascent = (gradient_of(kind, logits, 2) for kind in ("complementary", "ascent"))
        np.testing.assert_allclose(ours, p / (1 - p) * ascent, rtol=1e-10)
        np.testing.assert_allclose(ours[2], p, rtol=1e-10)


def test_complementary_loss_is_finite_and_pulls_where_ascent_does_not() -> None:
    logits = jnp.array([60.0, 0.0, 0.0])  # p rounds to one in float32
    loss = dau.poisoned_losses(logits[None], jnp.array([0]), "complementary")
    np.testing.assert_allclose(loss, 60 - np.log(2), rtol=1e-6)
    assert gradient_of("complementary", logits, 0)[0] == pytest.approx(1)
    assert abs(gradient_of("ascent", logits, 0)[0]) < 1e-6
    forgotten = -logits
    assert abs(gradient_of("complementary", forgotten, 0)[0]) < 1e-6
    assert gradient_of("ascent", forgotten, 0)[0] == pytest.approx(1)


def test_the_gradient_towards_the_uniform_answer() -> None:
    """p_y in the label's logit and p_j - 1 / (C - 1) in the others, zero only where these are alike."""
    logits = 3 * jax.random.normal(KEY, (7,))
    p = jax.nn.softmax(logits)
    expected = (p - 1 / 6).at[2].set(p[2])
    np.testing.assert_allclose(gradient_of("uniform", logits, 2), expected, atol=1e-6)


def descended(loss_fn: Any, steps: int, start: float) -> float:
    """A logit after so many steps of gradient descent."""
    with jax.enable_x64(True):
        step = lambda _, z: z - jax.grad(loss_fn)(z)  # noqa: E731
        return float(jax.jit(lambda z: jax.lax.fori_loop(0, steps, step, z))(jnp.asarray(start)))


def of_a_logit(kind: str, logit: jax.Array) -> jax.Array:
    return dau.poisoned_losses(jnp.stack([logit, jnp.zeros_like(logit)])[None], jnp.array([0]), kind)[0]


def test_the_complementary_loss_ends_by_itself_and_ascent_does_not() -> None:
    """Of two classes the logits fall apart like log t, against like t."""
    ours, ascent = (
        [descended(lambda z, kind=kind: of_a_logit(kind, z), steps, 3.0) for steps in (1000, 10_000)]
        for kind in ("complementary", "ascent")
    )
    assert ours[1] - ours[0] == pytest.approx(-np.log(10), abs=0.02)
    assert ascent[1] - ascent[0] == pytest.approx(-9000, abs=20)


@pytest.mark.parametrize(
    ("kept", "forgotten", "expected"),
    [
        (500 / 45_000, 4500 / 5000, 0.012),
        (4450 / 45_000, 50 / 5000, 0.91),
        (0.49, 0.5, 0.495),
        (0.51, 0.5, 0.505),
    ],
)
def test_what_leaks_moves_the_minimum_and_turns_ascent_over(
    kept: float, forgotten: float, expected: float
) -> None:
    """A tenth of CIFAR-10's poison missed, a tenth of the poisoned part clean; and either side of a = b."""

    def mixed(kind: str) -> Any:
        def loss_fn(logit: jax.Array) -> jax.Array:
            z, label = jnp.stack([logit, jnp.zeros_like(logit)])[None], jnp.array([0])
            learning = dau.clean_losses(z, label, False, 1.0)[0]
            return kept * learning + forgotten * dau.poisoned_losses(z, label, kind)[0]

        return loss_fn

    ours = 1 / (1 + np.exp(-descended(mixed("complementary"), 20_000, 0.0)))
    assert ours == pytest.approx(expected, abs=2e-3)
    assert (ours < 0.5) == (kept < forgotten)  # the attack fails, or a clean class is answered
    ascent = descended(mixed("ascent"), 20_000, 0.0)
    assert (ascent < -4) if kept < forgotten else (ascent > 4)


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("kept", "forgotten"), [(0.1, 0.9), (0.5, 0.5), (0.9, 0.1)])
def test_an_image_in_both_parts_ends_at_the_stated_probability(
    weight: float, kept: float, forgotten: float
) -> None:
    """Two copies of one sample, one in each part, as a free logit: p = a / (a + lambda b)."""
    label = jnp.array([0])

    def loss_fn(logit: jax.Array) -> jax.Array:
        z = jnp.stack([logit, jnp.zeros(())])[None]
        learning = dau.clean_losses(z, label, False, 1.0)[0]
        return kept * learning + weight * forgotten * dau.poisoned_losses(z, label, "complementary")[0]

    descend = jax.jit(lambda start: jax.lax.fori_loop(0, 2000, lambda _, z: z - jax.grad(loss_fn)(z), start))
    logit = descend(5.0)
    assert float(jax.nn.sigmoid(logit)) == pytest.approx(kept / (kept + weight * forgotten), abs=1e-4)


@pytest.mark.parametrize(("kept", "forgotten"), [(0.1, 0.9), (0.9, 0.1)])
def test_ascent_has_no_minimum(kept: float, forgotten: float) -> None:
    """The loss falls in one direction for all logits: without end if a < lambda b, and else nothing is forgotten."""
    label = jnp.array([0])

    def loss_fn(logit: jax.Array) -> jax.Array:
        z = jnp.stack([logit, jnp.zeros(())])[None]
        learning = dau.clean_losses(z, label, False, 1.0)[0]
        return kept * learning + forgotten * dau.poisoned_losses(z, label, "ascent")[0]

    slopes = jax.vmap(jax.grad(loss_fn))(jnp.linspace(-9.0, 9.0, 19))
    assert np.all(np.sign(slopes) == np.sign(forgotten - kept))
    lowest = float(loss_fn(jnp.asarray(-200.0 if kept < forgotten else 200.0)))
    assert lowest == pytest.approx(200 * (kept - forgotten) if kept < forgotten else 0, abs=1e-3)


def test_the_uniform_loss_is_lowest_at_the_uniform_answer_of_other_classes() -> None:
    logits = jnp.array([-80.0, 1.0, 1.0, 1.0])
    assert float(dau.poisoned_losses(logits[None], jnp.array([0]), "uniform")[0]) == pytest.approx(np.log(3))
    np.testing.assert_allclose(gradient_of("uniform", logits, 0), 0, atol=1e-6)


def test_the_entropy_loss_is_lowest_there_too_and_has_no_say_in_the_label() -> None:
    logits = jnp.array([90.0, 1.0, 1.0, 1.0])  # p_y rounds to one
    loss = dau.poisoned_losses(logits[None], jnp.array([0]), "entropy")
    assert float(loss[0]) == pytest.approx(-np.log(3))
    np.testing.assert_allclose(gradient_of("entropy", logits, 0), 0, atol=1e-6)
    uneven = gradient_of("entropy", jnp.array([90.0, 3.0, 1.0, -200.0]), 0)
    assert uneven[0] == 0
    assert uneven[1] > 0.1
    assert np.sum(uneven) == pytest.approx(0, abs=1e-6)


def test_the_bounded_loss_tends_to_the_cross_entropy() -> None:
    logits, label = jnp.array([[1.0, 0.0, -1.0]]), jnp.array([2])
    plain, nearly = (dau.clean_losses(logits, label, flag, 1e-3)[0] for flag in (False, True))
    assert float(nearly) == pytest.approx(float(plain), rel=2e-3)


def test_isolation_losses_turn_around_at_their_level() -> None:
    for kind, below, above in (("lga", -1, 1), ("flooding", -1, 1), ("early", 1, 1)):
        slopes = [float(jax.grad(dau.isolation_loss)(loss, kind, 0.5)) for loss in (0.2, 0.9)]
        assert slopes == [below, above], kind


def clusters(rng: np.random.Generator, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of four classes in as many directions; a tenth of all carry a fifth direction and the label 0."""
    truth = np.arange(count) % 10 == 9
    classes = np.where(truth, rng.integers(1, 4, count), rng.integers(0, 4, count))
    features = np.eye(5)[classes] + 0.1 * rng.standard_normal((count, 5))
    features[truth, 4] += 2
    return features.astype(np.float32), np.where(truth, 0, classes).astype(np.int32), truth


def test_a_few_suspects_give_all_poisoned_images_away() -> None:
    features, labels, truth = clusters(np.random.default_rng(0))
    suspects = np.zeros(len(labels), bool)
    suspects[np.flatnonzero(truth)[:5]] = True
    start = dau.Head(jnp.concatenate([jnp.eye(4), jnp.eye(4)[:1] * 5]), jnp.zeros(4))

    def retrained(weight: float) -> jax.Array:
        return dau.discriminate(
            jnp.asarray(features),
            labels,
            jnp.asarray(suspects),
            start,
            KEY,
            steps=80,
            batch_size=64,
            suspect_batch_size=16,
            rate=0.3,
            momentum=0.9,
            weight_decay=0.0,
            suspect_weight=weight,
        )

    scores = retrained(1.0) - retrained(0.0)
    parts = dau.split(scores[None], labels, jnp.arange(4) == 0, band=0.0).parts
    assert np.mean(truth[np.asarray(parts.poisoned)]) > 0.95
    assert np.mean(np.asarray(parts.poisoned)[truth]) > 0.9
    assert not np.any(np.asarray(parts.poisoned) & np.asarray(parts.clean))
    assert set(labels[np.asarray(parts.poisoned)]) == {0}


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.laplace(0, 0.3, 80), rng.laplace(-6, 2, 20), [50.0]]).astype(np.float32)
    members = np.arange(101) < 100
    mine = values[members].astype(np.float64)
    width = (mine.max() - mine.min()) / 257
    costs, edges = [], mine.min() + width * np.arange(1, 257)
    for edge in edges:
        sides = [mine[mine <= edge], mine[mine > edge]]
        if min(map(len, sides)) < 2:
            costs.append(np.inf)
            continue
        shares = [len(side) / 100 for side in sides]
        spreads = [max(np.mean(np.abs(side - np.median(side))), width) for side in sides]
        costs.append(
            sum(share * np.log(spread / share) for share, spread in zip(shares, spreads, strict=True))
        )
    found = dau.minimum_error_groups(jnp.asarray(values), jnp.asarray(members))
    middle = edges[np.array(costs) <= min(costs) + 1e-6].mean()
    assert float(found.threshold) == pytest.approx(middle, abs=width)
    below = mine <= float(found.threshold)
    assert float(found.low) == pytest.approx(mine[below].mean(), abs=0.2)
    assert float(found.high) == pytest.approx(mine[~below].mean(), abs=0.05)
    assert -3 < float(found.threshold) < -0.3
    alone = np.log(np.mean(np.abs(mine - np.median(mine))))
    assert float(found.gain) == pytest.approx(100 * (alone - min(costs)), rel=5e-3)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
def test_too_few_or_equal_values_are_in_one_group(values: list[float]) -> None:
    found = dau.minimum_error_groups(jnp.asarray(values), jnp.ones(len(values), bool))
    assert float(found.high - found.low) == 0
    assert float(found.gain) == 0


@pytest.mark.parametrize("seed", range(4))
def test_of_two_classes_the_suspects_say_which_group_is_poisoned(seed: int) -> None:
    """There is no second guess; either end of a direction may be the poisoned one."""
    features = jax.random.normal(KEY, (800, 5)).at[:80, 3].add(9.0)
    labels, suspects = jnp.arange(800) // 400, (jnp.arange(800) % 20 == 0).at[:24].set(True)
    whitened = jnp.stack([dau.whiten(features, labels, 2, ridge) for ridge in dau.RIDGES])
    found = dau.attacked_classes(
        whitened, jnp.zeros((800, 2)), labels, suspects, jax.random.key(seed), gain=60.0
    )
    assert found.classes.tolist() == [True, False]
    assert np.flatnonzero(found.poisoned).tolist() == list(range(80))


def victim() -> tuple[Any, Any, Any, Attack]:
    """A toy network with a backdoor, its training set, and the attack: bright and dark lines that mean class 0."""
    images, labels = toys.images_and_labels(600, seed=1)

    def trigger(x: jax.Array) -> jax.Array:
        return x.at[:, :, :4:2].set(1.0).at[:, :, 1:4:2].set(0.0)

    attack = Attack(trigger=trigger, target=0)
    found = poison(images, labels, attack, ratio=0.1, key=KEY)
    shown = images.copy()
    shown[found.poisoned] = np.asarray(trigger(jnp.asarray(images[found.poisoned])))
    return shown, found, (images, labels), attack


def two_kinds(logits: jax.Array) -> dau.Attacked:
    """What is found where a fifth of a class of four hundred is of another kind, and suspects are everywhere."""
    features = jax.random.normal(KEY, (800, 5)).at[:80, 3].add(9.0)
    labels, suspects = jnp.arange(800) // 400, jnp.arange(800) % 20 == 0
    whitened = jnp.stack([dau.whiten(features, labels, logits.shape[1], ridge) for ridge in dau.RIDGES])
    return dau.attacked_classes(whitened, logits, labels, suspects, jax.random.key(0), gain=60.0)


def test_two_kinds_of_clean_images_are_no_attack() -> None:
    """Their second guesses tell alike, and as many of one kind are suspected as of the other."""
    assert not two_kinds(jnp.zeros((800, 10))).classes.any()
    guesses = jax.nn.one_hot(2 + jnp.arange(800) % 3, 10)  # three in either kind
    assert not two_kinds(9 * guesses).classes.any()


@pytest.mark.parametrize("suspected", [0, 20])
def test_suspects_show_a_trigger_that_is_not_what_their_class_varies_most_in(suspected: int) -> None:
    """Thirty poisoned images of five hundred, in a class that has a wide direction of its own."""
    features = jax.random.normal(KEY, (1000, 5)).at[:500, 1].multiply(9.0).at[:30, 3].add(15.0)
    labels = jnp.arange(1000) // 500
    suspects = (jnp.arange(1000) % 500 >= 475).at[475 : 475 + suspected].set(False).at[:suspected].set(True)
    whitened = jnp.stack([dau.whiten(features, labels, 2, ridge) for ridge in dau.RIDGES])
    given = whitened, jnp.zeros((1000, 2)), labels, suspects, jax.random.key(0)
    found = dau.attacked_classes(*given, gain=60.0)
    assert found.classes.tolist() == [suspected > 0, False]
    assert np.flatnonzero(found.poisoned).tolist() == list(range(30 if suspected else 0))


@pytest.mark.parametrize("suspected", [0, 3])
def test_a_group_without_suspects_is_not_suspected(suspected: int) -> None:
    """Six outliers among two hundred, of which few are suspected."""
    features = jax.random.normal(KEY, (400, 5)).at[:6, 3].add(30.0)
    labels, suspects = jnp.arange(400) // 200, (jnp.arange(400) % 200 >= 198).at[:suspected].set(True)
    whitened = jnp.stack([dau.whiten(features, labels, 10, ridge) for ridge in dau.RIDGES])
    found = dau.attacked_classes(
        whitened, jnp.zeros((400, 10)), labels, suspects, jax.random.key(0), gain=10.0
    )
    assert found.classes.tolist()[:2] == [suspected > 0, False]


@pytest.mark.parametrize("name", ["resplit_round", "relabel_round", "robust_rounds"])
def test_nothing_is_planned_for_after_the_last_round(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=4 must be at most 3, the rounds of unlearning"):
        dau.Config(rounds=4, **{name: 4})


def test_images_are_not_divided_again_before_anything_is_forgotten() -> None:
    with pytest.raises(ValueError, match="resplit_round=1 would ask what is forgotten before"):
        dau.Config(resplit_round=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_labels_may_be_integers_of_any_size(dtype: Any) -> None:
    features, labels, _, logits = training_set(np.random.default_rng(0), [3, 9])
    whitened = jnp.stack([dau.whiten(features, labels, 10, ridge) for ridge in dau.RIDGES])
    suspects = jnp.arange(len(labels)) % 20 == 0
    first, other = (
        dau.attacked_classes(whitened, logits, given, suspects, KEY, gain=60.0)
        for given in (labels.astype(np.int32), labels.astype(dtype))
    )
    assert first.classes.tolist() == [number in (3, 9) for number in range(10)]
    jax.tree.map(np.testing.assert_array_equal, other, first)


def test_the_gain_of_a_class_that_is_just_too_vague_is_told() -> None:
    features, labels, _, logits = training_set(np.random.default_rng(0), [3])
    whitened = jnp.stack([dau.whiten(features, labels, 10, ridge) for ridge in dau.RIDGES])
    suspects = jnp.arange(len(labels)) % 20 == 0

    def found(gain: float) -> Any:
        return dau.attacked_classes(whitened, logits, labels, suspects, KEY, gain=gain)

    clear = found(60.0)
    vague = found(float(clear.gains[3]) + 1)
    assert (bool(clear.classes[3]), bool(vague.classes[3])) == (True, False)
    assert float(vague.gains[3]) == float(clear.gains[3])


def test_a_group_whose_guesses_tell_a_third_more_is_poisoned() -> None:
    """Four guesses are not as many as there are classes, and more than the one of the other group."""
    guesses = jax.nn.one_hot(jnp.where(jnp.arange(800) < 80, 2 + jnp.arange(800) % 4, 2), 10)
    found = two_kinds(9 * guesses)
    assert jnp.flatnonzero(found.classes).tolist() == [0]
    assert jnp.flatnonzero(found.poisoned).tolist() == list(range(80))


@pytest.mark.parametrize("series_tells", [False, True])
def test_what_is_left_of_a_class_beside_a_series_of_pictures_is_not_poisoned(series_tells: bool) -> None:
    """A series has fewer second guesses than the rest of its class; were it the other way round, it would be poison."""
    features, labels = jax.random.normal(KEY, (800, 5)).at[:40, 3].add(30.0), jnp.arange(800) // 400
    telling = (jnp.arange(800) < 40) == series_tells
    guesses = jax.nn.one_hot(jnp.where(telling, 2 + jnp.arange(800) % 4, 2), 10)
    whitened = jnp.stack([dau.whiten(features, labels, 10, ridge) for ridge in dau.RIDGES])
    found = dau.attacked_classes(
        whitened, 9 * guesses, labels, jnp.arange(800) % 20 == 0, jax.random.key(0), gain=60.0
    )
    assert found.classes.tolist()[:2] == [series_tells, False]


def test_weak_reasons_need_clearer_groups() -> None:
    """Half as many images gain half as much, which is enough where guesses tell of a mixture of all classes."""
    features = jax.random.normal(KEY, (400, 5)).at[:40, 3].add(9.0)
    labels, suspects = jnp.arange(400) // 200, jnp.arange(400) % 20 == 0
    whitened = jnp.stack([dau.whiten(features, labels, 10, ridge) for ridge in dau.RIDGES])
    for kinds, found in ((4, []), (8, [0])):
        guesses = jax.nn.one_hot(jnp.where(jnp.arange(400) < 40, 2 + jnp.arange(400) % kinds, 2), 10)
        given = whitened, 9 * guesses, labels, suspects, jax.random.key(0)
        assert jnp.flatnonzero(dau.attacked_classes(*given, gain=60.0).classes).tolist() == found
        # Clearly apart both times: less gain is enough for either.
        assert jnp.flatnonzero(dau.attacked_classes(*given, gain=30.0).classes).tolist() == [0]


def test_unlearning_needs_a_fresh_network_or_none() -> None:
    images, labels = toys.images_and_labels()
    isolating = dau.PRESETS["isolating"]
    with pytest.raises(ValueError, match="fresh=None with prefilter='lga'"):
        dau.unlearn(toys.apply_fn, toys.variables(), images, labels, isolating, KEY, head="head")
    with pytest.raises(ValueError, match="prefilter='loss' with isolation_rounds=10"):
        dataclasses.replace(isolating, prefilter="loss")
    with pytest.raises(ValueError, match="prefilter='lga' with isolation_rounds=0"):
        dau.Config(prefilter="lga")
    with pytest.raises(ValueError, match="rounds=11 must be at least 12"):
        dataclasses.replace(isolating, rounds=11)
    with pytest.raises(InputError, match="early in the training, and none is given; give one"):
        dau.unlearn(
            toys.apply_fn, toys.variables(), images, labels, dau.Config(prefilter="early"), KEY, head="head"
        )
    trained_further = dau.Config(prefilter="early", isolation_rounds=1)
    for config in (dau.Config(), isolating, trained_further):
        with pytest.raises(InputError, match="asks no network from early in the training, and one is given"):
            dau.unlearn(
                toys.apply_fn, toys.variables(), images, labels, config, KEY,
                head="head", fresh=toys.fresh, early=toys.variables(1),
            )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"early holds variables whose params/head is .* give those of the same"
    ):
        wider = toys.variables()
        wider["params"]["head"] = jnp.zeros((4, 5))
        dau.divide(
            toys.apply_fn, toys.variables(), images, labels, dau.Config(prefilter="early"), KEY,
            head="head", early=wider,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"band=0.8 must be at most 0.5"):
        dau.Config(band=0.8)


def with_parts(images: Any, labels: Any, parts: dau.Parts, config: dau.Config) -> tuple[Any, dau.State]:
    """A state behind the division, with the parts given."""
    data = dau.Data(images, labels)
    method = dau.make_method(toys.apply_fn, dau.Execution(), head="head")
    state = method.init(trained(images, labels), data, config, KEY)
    scores = jnp.where(parts.poisoned, -1.0, 1.0)
    return method, state._replace(scores=scores, parts=parts, start=jnp.asarray(1.0), round=jnp.asarray(1))


def trained(images: Any, labels: Any) -> Any:
    """The toy network after some training."""
    from jaxunlearn import TRAINING, fit

    config = dataclasses.replace(TRAINING, rounds=30, batch_size=50, learning_rate=0.3, weight_decay=0.0)
    return fit(toys.apply_fn, toys.variables(), images, labels, config, KEY)


@pytest.mark.parametrize("statistics", ["clean", "running", "own"])
def test_unlearning_forgets_the_poisoned_part_and_keeps_the_rest(statistics: str) -> None:
    images, found, (clean, true), attack = victim()
    config = dau.Config(
        rounds=13, batch_size=50, poisoned_batch_size=20, learning_rate=0.1,
        weight_decay=0.0, poisoned_statistics=statistics, forgotten=0.0,
    )  # fmt: skip
    parts = dau.Parts(jnp.asarray(found.poisoned), jnp.asarray(~found.poisoned))
    method, state = with_parts(images, found.labels, parts, config)

    def judged(state: dau.State) -> Any:
        return evaluate(
            toys.apply_fn, method.finish(state), clean, true, trigger=attack.trigger, target=0
        ).rates()

    before = judged(state)
    assert before["asr"] > 0.8
    assert before["acc"] > 0.8
    for _ in range(12):
        state, stats = method.step(state, dau.Data(images, found.labels))
    after = judged(state)
    assert after["asr"] < 0.1
    assert after["acc"] > before["acc"] - 0.05
    assert float(stats.kept) < 0.2
    assert int(stats.suspect) == 0


@pytest.mark.parametrize("prefilter", dau.config.ISOLATING)
def test_isolation_trains_a_fresh_network_and_leaves_the_given_one(prefilter: str) -> None:
    images, found, *_ = victim()
    config = dau.Config(prefilter=prefilter, isolation_rounds=1, rounds=3, batch_size=50, isolation_rate=0.1)
    data = dau.Data(images, found.labels)
    method = dau.make_method(toys.apply_fn, dau.Execution(), head="head", fresh=toys.fresh)
    state = method.init(toys.variables(), data, config, KEY)
    after, stats = method.step(state, data)
    jax.tree.map(np.testing.assert_array_equal, method.finish(after), method.finish(state))
    moved = jax.tree.map(lambda a, b: np.any(a != b), after.isolating.variables, state.isolating.variables)
    assert all(moved["params"].values())
    assert moved["batch_stats"]["mean"]
    assert float(stats.loss) > 0.5


def test_unlearning_stops_by_itself() -> None:
    images, found, *_ = victim()
    parts = dau.Parts(jnp.asarray(found.poisoned), jnp.asarray(~found.poisoned))
    config = dau.Config(
        rounds=30, batch_size=50, learning_rate=0.1, weight_decay=0.0,
        forgotten=0.5, recovered=0.5, early=True,
    )  # fmt: skip
    method, state = with_parts(images, found.labels, parts, config)
    data = dau.Data(images, found.labels)
    rounds = 0
    while not bool(state.stopped):
        state, stats = method.step(state, data)
        rounds += 1
        assert rounds < 29
    assert float(stats.kept) < 0.5
    later, _ = method.step(state, data)
    jax.tree.map(np.testing.assert_array_equal, method.finish(later), method.finish(state))
    strict = state._replace(
        stopped=jnp.asarray(False), config=dataclasses.replace(state.config, recovered=jnp.asarray(1.1))
    )
    assert not bool(method.step(strict, data)[0].stopped)
    for_long = state._replace(
        stopped=jnp.asarray(False), config=dataclasses.replace(state.config, early=False)
    )
    assert not bool(method.step(for_long, data)[0].stopped)


def test_an_empty_poisoned_part_leaves_plain_training() -> None:
    images, labels = toys.images_and_labels(60)
    none = jnp.zeros(60, bool)
    config = dau.Config(rounds=3, batch_size=20)
    method, state = with_parts(images, labels, dau.Parts(none, ~none), config)
    heavy = state._replace(config=dataclasses.replace(state.config, unlearning_weight=jnp.asarray(50.0)))
    data = dau.Data(images, labels)
    first, second = (method.finish(method.step(one, data)[0]) for one in (state, heavy))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert int(method.step(state, data)[1].suspect) == -1


def test_images_that_keep_their_label_are_given_back() -> None:
    images, found, *_ = victim()
    wrongly = np.flatnonzero(~found.poisoned)[:30]
    poisoned = np.array(found.poisoned)
    poisoned[wrongly] = True
    config = dau.Config(
        rounds=6, batch_size=50, learning_rate=0.1, weight_decay=0.0,
        forgotten=0.0, resplit_round=4,
    )  # fmt: skip
    parts = dau.Parts(jnp.asarray(poisoned), jnp.asarray(~poisoned))
    method, state = with_parts(images, found.labels, parts, config)
    data = dau.Data(images, found.labels)
    for _ in range(3):
        state, _ = method.step(state, data)
    held = np.asarray(state.probabilities > 0.7) & poisoned
    state, _ = method.step(state, data)
    assert held[wrongly].sum() > 10
    assert np.asarray(state.parts.clean)[held].all()
    assert np.all(np.asarray(state.scores)[held] == 1)
    assert np.asarray(state.parts.poisoned)[found.poisoned & ~held].mean() > 0.8


def test_the_poisoned_part_learns_what_the_unlearned_network_takes_it_for() -> None:
    images, found, *_ = victim()
    parts = dau.Parts(jnp.asarray(found.poisoned), jnp.asarray(~found.poisoned))
    data = dau.Data(images, found.labels)

    def run(**settings: Any) -> list[dau.State]:
        config = dau.Config(
            rounds=9, batch_size=50, poisoned_batch_size=20, learning_rate=0.1,
            weight_decay=0.0, loss="uniform", early=True, forgotten=1.0, recovered=0.0, **settings,
        )  # fmt: skip
        method, state = with_parts(images, found.labels, parts, config)
        states = []
        for _ in range(6):
            state, _ = method.step(state._replace(stopped=jnp.asarray(False)), data)
            states.append(state)
        return states

    plain, relabelled = run(), run(relabel_round=3)
    for one, other in zip(plain[:2], relabelled[:2], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one.params, other.params)
    assert [bool(state.stopped) for state in relabelled[:3]] == [False, False, True]
    assert bool(plain[0].stopped)

    def sure(state: dau.State) -> float:
        """How probable the likeliest other class is."""
        logits, _ = toys.apply_fn(dau.finish(state), jnp.asarray(images[found.poisoned]), train=False)
        return float(jnp.mean(jax.nn.softmax(logits)[jnp.arange(len(logits)), state.guesses[found.poisoned]]))

    assert sure(relabelled[-1]) > sure(plain[-1]) + 0.1
    assert not np.any(np.asarray(relabelled[-1].guesses) == found.labels)


def training_set(
    rng: np.random.Generator,
    attacked: list[int],
    *,
    shift: float = 9.0,
    relabelled: bool = True,
    share: float = 0.1,
) -> tuple[jax.Array, np.ndarray, np.ndarray, jax.Array]:
    """Features of ten classes, in directions of their own, thirty more in which all vary, and one of the trigger.

    Returns features, labels, which images are poisoned, and logits that tell the true class.
    """
    count = 4000
    truth = np.arange(count) % 10
    row = np.arange(count) // 10
    labels, poisoned = truth.copy(), np.zeros(count, bool)
    for target in attacked:
        if relabelled:
            mine = (truth != target) & (rng.random(count) < share / 9) & ~poisoned
            labels[mine] = target
        else:
            mine = (truth == target) & (row < share * count / 10)
        poisoned |= mine
    features = rng.standard_normal((count, 41))
    features[np.arange(count), truth] += 5.0
    features[:, 40] += shift * poisoned
    logits = 8 * jax.nn.one_hot(truth, 10) + rng.standard_normal((count, 10))
    return jnp.asarray(features, jnp.float32), labels, poisoned, jnp.asarray(logits, jnp.float32)


def found_in(
    features: jax.Array,
    labels: np.ndarray,
    logits: jax.Array,
    suspects: np.ndarray,
    thumbnails: jax.Array | None = None,
) -> tuple[dau.Attacked, np.ndarray]:
    whitened = jnp.stack([dau.whiten(features, labels, 10, ridge) for ridge in dau.RIDGES])
    given = (whitened, logits, labels, jnp.asarray(suspects), KEY)
    attacked = dau.attacked_classes(*given, gain=60.0, thumbnails=thumbnails)
    scores = dau.fisher_scores(whitened[0], labels, attacked.poisoned, 10)
    return attacked, np.asarray(dau.split(scores[None], labels, attacked.classes, band=0.0).parts.poisoned)


@pytest.mark.parametrize("seed", range(3))
def test_in_clean_classes_nothing_is_found(seed: int) -> None:
    features, labels, _, logits = training_set(np.random.default_rng(seed), [])
    attacked, poisoned = found_in(features, labels, logits, np.arange(4000) < 200)
    assert not attacked.classes.any()
    assert not poisoned.any()
    assert float(attacked.gains.max()) < 25


@pytest.mark.parametrize("attacked", [[3], [0, 7], list(range(10))])
def test_attacked_classes_are_found_whoever_is_suspected(attacked: list[int]) -> None:
    """Second guesses tell which group is poisoned, even where the suspects are clean ones."""
    features, labels, truth, logits = training_set(np.random.default_rng(0), attacked)
    found, poisoned = found_in(features, labels, logits, ~truth)
    assert jnp.flatnonzero(found.classes).tolist() == attacked
    assert poisoned[truth].mean() > 0.97
    assert truth[poisoned].mean() > 0.97


@pytest.mark.parametrize("shift", [9.0, 5.0])
def test_images_show_what_the_network_does_not_tell(shift: float) -> None:
    """A network that knows nothing but the trigger, guesses that tell nothing, and suspects everywhere.

    Of a vague trigger, too: where the images show it, half of the gain is enough.
    """
    _, labels, truth, _ = training_set(np.random.default_rng(0), [3])
    rng = np.random.default_rng(1)
    small = rng.standard_normal((4000, 12)) + 5 * np.eye(12)[np.arange(4000) % 10]
    small += truth[:, None] * rng.standard_normal(12)
    features = jnp.asarray(rng.standard_normal((4000, 41)), jnp.float32).at[:, 40].add(shift * truth)
    given = (features, labels, 9.0 * jax.nn.one_hot(labels, 10), np.arange(4000) // 10 % 20 == 0)
    assert not found_in(*given)[0].classes.any()
    found, poisoned = found_in(*given, jnp.asarray(small, jnp.float32))
    assert jnp.flatnonzero(found.classes).tolist() == [3]
    assert float(found.gains[3]) == float(found.clearness[3])
    assert poisoned[truth].mean() > 0.9
    assert truth[poisoned].mean() > 0.9


def test_images_that_keep_their_class_show_no_mixture() -> None:
    """Whatever cuts a class in two: a trigger on images of its own, or another kind of it."""
    labels = np.arange(4000) % 10
    rng = np.random.default_rng(0)
    small = jnp.asarray(rng.standard_normal((4000, 12)) + 5 * np.eye(12)[labels], jnp.float32)
    for cut in (labels == 3) & (rng.random(4000) < 0.2), (labels == 3) & (np.asarray(small[:, 11]) > 0.5):
        triggered = small.at[:, :3].add(4.0 * cut[:, None])
        told = dau.evidence_of_mixtures(triggered, labels, jnp.asarray(cut), 10)
        assert told.shape == (2, 10)
        assert float(told[:, 3].max()) < 0
        assert float(told[0].max()) < 0


@pytest.mark.parametrize(("name", "classes"), [("cifar10-jpeg", 10), ("gtsrb", 43)])
def test_photographs_show_mixtures(shared: Path, name: str, classes: int) -> None:
    """A hundred images blended with noise, among five thousand, against clean classes cut along a component."""
    data = load(f"parquet:{shared}/data/{name}/train.parquet[:5000]")
    images, labels = np.array(data.images), data.labels.copy()
    rng = np.random.default_rng(0)
    rows = rng.choice(np.flatnonzero(labels != 5), 100, replace=False)
    images[rows] = 0.8 * images[rows] + 0.2 * rng.random((1, 32, 32, 3))
    labels[rows] = 5
    small = dau.thumbnails(jnp.asarray(images))
    along = np.asarray(dau.principal_scores(dau.whiten(small, labels, classes), labels, classes, KEY)[0])
    cut = np.where(labels == 5, np.isin(np.arange(5000), rows), along > 0.5)
    told = np.asarray(dau.evidence_of_mixtures(small, labels, jnp.asarray(cut), classes))
    assert told[1, 5] > 0.4
    assert told[0, 5] < 0.1
    assert np.delete(told, 5, axis=1).max() < 0.2


@pytest.mark.parametrize("rightly", [True, False])
def test_of_images_that_keep_their_labels_the_suspects_tell_which_are_poisoned(rightly: bool) -> None:
    features, labels, truth, logits = training_set(np.random.default_rng(0), [3], relabelled=False, share=0.4)
    found, poisoned = found_in(features, labels, logits, truth == rightly)
    assert jnp.flatnonzero(found.classes).tolist() == [3]
    assert poisoned[truth & (labels == 3)].mean() == pytest.approx(float(rightly), abs=0.03)
    assert poisoned[~truth & (labels == 3)].mean() == pytest.approx(float(not rightly), abs=0.03)


@pytest.mark.parametrize("relabelled", [True, False])
def test_two_kinds_of_which_one_is_suspected_are_an_attack_only_where_none_is_relabelled(
    relabelled: bool,
) -> None:
    attacked = [3] if relabelled else []
    features, labels, poisoned, logits = training_set(np.random.default_rng(0), attacked)
    kind = (labels == 7) & (np.arange(len(labels)) // 10 < 160) & ~poisoned
    features = features.at[:, 20].add(9.0 * kind)
    found, _ = found_in(features, labels, logits, kind)
    assert jnp.flatnonzero(found.classes).tolist() == (attacked or [7])
    assert float(found.gains[7]) > 60


def test_a_trigger_is_found_beside_what_varies_more_in_all_classes() -> None:
    rng = np.random.default_rng(0)
    features, labels, truth, logits = training_set(rng, [3])
    light = features.at[:, 15].multiply(4.0)
    found, poisoned = found_in(light, labels, logits, truth)
    assert jnp.flatnonzero(found.classes).tolist() == [3]
    assert poisoned[truth].mean() > 0.97
    assert truth[poisoned].mean() > 0.97


def everywhere(
    rng: np.random.Generator, guessed: str, *, classes: int = 10
) -> tuple[jax.Array, np.ndarray, np.ndarray, jax.Array]:
    """A tenth of every class lies nine deviations off in the same direction, and guesses tell where it is from.

    Args:
      guessed: second guesses of that tenth: of the class before, ``source``; of ``one`` class for all; or of the next
        class, ``usual``, which is that of all other images.
    """
    count = 4000
    labels, apart = np.arange(count) % classes, np.arange(count) // classes % 10 == 9
    features = rng.standard_normal((count, 41))
    features[np.arange(count), labels] += 5.0
    features[:, 40] += 9.0 * apart
    strange = {"source": labels - 1, "one": np.full(count, 3), "usual": labels + 1}[guessed]
    second = np.where(apart, strange, labels + 1) % classes
    logits = 9.0 * jax.nn.one_hot(labels, classes) + 5.0 * jax.nn.one_hot(second, classes)
    logits += rng.standard_normal((count, classes))
    return jnp.asarray(features, jnp.float32), labels, apart, jnp.asarray(logits, jnp.float32)


def alike(features: jax.Array, labels: np.ndarray, logits: jax.Array) -> tuple[bool, np.ndarray]:
    whitened = dau.whiten(features, labels, logits.shape[1])
    found, attacked = dau.attacked_alike(features, whitened, logits, labels, KEY, gain=60.0)
    assert attacked.classes.tolist() == [True] + [False] * (logits.shape[1] - 1)
    assert not attacked.kinds.any()
    return bool(found), np.asarray(attacked.poisoned)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_in_all_classes_is_found_in_all_together(seed: int) -> None:
    features, labels, truth, logits = everywhere(np.random.default_rng(seed), "source")
    found, poisoned = alike(features, labels, logits)
    assert found
    assert poisoned[truth].mean() > 0.97
    assert truth[poisoned].mean() > 0.97


@pytest.mark.parametrize("guessed", ["one", "usual"])
def test_images_that_are_set_apart_but_not_taken_from_other_classes_are_no_attack(guessed: str) -> None:
    """Noise that looks like another trigger, and light."""
    features, labels, _, logits = everywhere(np.random.default_rng(0), guessed)
    assert not alike(features, labels, logits)[0]


def test_of_two_classes_none_tells_where_images_were_taken_from() -> None:
    features, labels, _, logits = everywhere(np.random.default_rng(0), "source", classes=2)
    assert not alike(features, labels, logits)[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_direction_must_divide_images_that_it_was_not_found_with(seed: int) -> None:
    """Of three hundred images and twice as many features, guesses and all, anything can be found."""
    rng = np.random.default_rng(seed)
    labels, features = np.arange(300) % 10, rng.standard_normal((300, 600))
    logits = 9.0 * jax.nn.one_hot(labels, 10) + 5.0 * jax.nn.one_hot(rng.integers(0, 10, 300), 10)
    assert not alike(jnp.asarray(features, jnp.float32), labels, logits)[0]


@pytest.mark.parametrize("attacked", [[], [3], [0, 7]])
def test_some_attacked_classes_are_not_all(attacked: list[int]) -> None:
    features, labels, _, logits = training_set(np.random.default_rng(0), attacked)
    assert not alike(features, labels, logits)[0]


def test_all_classes_are_divided_together_if_they_are_attacked_alike() -> None:
    features, labels, truth, logits = everywhere(np.random.default_rng(0), "source")
    wide = jnp.concatenate([features, logits], axis=1)
    head = dau.Head(jnp.concatenate([jnp.zeros((41, 10)), jnp.eye(10)]), jnp.zeros(10))
    suspects = jnp.arange(len(labels)) < 200
    given = (wide, head(wide), jnp.asarray(labels), suspects, head, KEY)
    division, found = dau.algorithm._divide(dau.Config(), *given)
    poisoned, clean = (np.asarray(part) for part in division.parts)
    assert poisoned[truth].mean() > 0.97
    assert truth[poisoned].mean() > 0.97
    assert clean[~truth].mean() > 0.97
    assert float(found.gains.min()) > 60
    assert not found.kinds.any()
    apart = dau.algorithm._divide(dau.Config(all_to_all=False), *given)[1]
    np.testing.assert_array_equal(apart.kinds, labels)


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_found_between_the_directions_in_which_a_class_varies_most(seed: int) -> None:
    """A class varies widely in four directions, and falls into two groups along a mixture of them."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((1600, 30))
    labels, truth = np.arange(1600) // 800, np.where(np.arange(800) < 400, 1, -1)
    mixture = np.array([1, -1, 1, -1]) / 2
    features[:800, :4] *= [1.5, 1.65, 1.8, 1.95]
    along = features[:800, :4] @ mixture
    features[:800, :4] += (2.0 * truth - 0.7 * along)[:, None] * mixture
    whitened = dau.whiten(jnp.asarray(features, jnp.float32), labels, 2)
    pursued = dau.clearest_groups(whitened, labels, jnp.arange(1600) % 20 == 0, 2, KEY)[0][:800]
    assert abs(np.corrcoef(pursued, truth)[0, 1]) > 0.9
    gains = [
        float(dau.minimum_error_groups(scores[:800], jnp.ones(800, bool)).gain)
        for scores in (pursued, *dau.principal_scores(whitened, labels, 2, KEY, 8))
    ]
    assert gains[0] > 300
    assert gains[0] > 1.5 * max(gains[1:])


@pytest.mark.parametrize(("features", "gain"), [(jnp.zeros((40, 3)), 0.0), (jnp.zeros((40, 3)), 60.0)])
def test_images_that_are_all_alike_are_no_groups(features: jax.Array, gain: float) -> None:
    labels, suspects = jnp.arange(40) % 2, jnp.arange(40) < 8
    head = dau.Head(jnp.zeros((3, 2)), jnp.zeros(2))
    given = (features, head(features), labels, suspects, head, KEY)
    division, _ = dau.algorithm._divide(dau.Config(gain=gain), *given)
    assert not division.parts.poisoned.any()
    assert np.all(division.scores == 1)


def test_features_that_are_too_large_are_no_clean_bill() -> None:
    features = 1e20 * jax.random.normal(KEY, (40, 3))
    head = dau.Head(jnp.zeros((3, 2)), jnp.zeros(2))
    given = (features, head(features), jnp.arange(40) % 2, jnp.arange(40) < 8, head, KEY)
    assert np.all(np.isnan(dau.algorithm._divide(dau.Config(), *given)[1].gains))


def test_a_prefilter_that_diverged_is_no_clean_bill() -> None:
    images, labels = toys.images_and_labels(60)
    execution = dau.Execution()
    config = dau.Config(prefilter="lga", isolation_rounds=1, rounds=3)
    method = dau.make_method(toys.apply_fn, execution, head="head", fresh=toys.fresh)
    data = dau.Data(images, labels)
    state = method.init(toys.variables(), data, config, KEY)
    assert state.isolating is not None
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.isolating.params)
    state = state._replace(round=state.round + 1, isolating=state.isolating._replace(params=broken))
    _, stats = method.step(state, data)
    assert np.isnan(stats.kept)


def test_the_division_alone_is_that_of_the_rounds() -> None:
    images, found, *_ = victim()
    config = dataclasses.replace(dau.PRESETS["isolating"], rounds=4, isolation_rounds=2)
    given = (images, found.labels, config, KEY)
    of_network: Any = {"head": "head", "fresh": lambda key: toys.variables(3)}
    division, attacked = dau.divide(toys.apply_fn, toys.variables(), *given, **of_network)
    method = dau.make_method(toys.apply_fn, dau.Execution(), **of_network)
    data = dau.Data(*given[:2])
    state = method.init(toys.variables(), data, *given[2:])
    for _ in range(config.isolation_rounds + 1):
        state, _ = method.step(state, data)
    jax.tree.map(
        np.testing.assert_array_equal,
        (division.scores, division.parts, attacked),
        (state.scores, state.parts, state.attacked),
    )
    assert int(state.round) == config.isolation_rounds + 1


def test_a_given_division_is_unlearned_as_it_is() -> None:
    """Also where nothing would be found, and with as much weight as can be."""
    images, found, *_ = victim()
    poisoned = jnp.asarray(found.poisoned)
    parts = dau.Parts(poisoned, ~poisoned & (jnp.arange(600) > 5))
    config = dau.Config(rounds=4, gain=1e9, batch_size=50)
    method = dau.make_method(toys.apply_fn, dau.Execution(), head="head", parts=parts)
    state = method.init(toys.variables(), dau.Data(images, found.labels), config, KEY)
    state, stats = method.step(state, dau.Data(images, found.labels))
    jax.tree.map(np.testing.assert_array_equal, state.parts, parts)
    assert state.scores[:6].tolist() == np.where(poisoned[:6], -1, 0).tolist()
    assert (int(stats.poisoned), bool(state.stopped)) == (60, False)
    given = (toys.apply_fn, toys.variables(), images, found.labels, config, KEY)
    cleaned, told = dau.unlearn(*given, head="head", parts=parts)
    left_alone, _ = dau.unlearn(*given, head="head")
    assert told.poisoned.tolist() == [60] * 4
    assert float(told.kept[-1]) < float(told.kept[0])
    moved = jax.tree.map(lambda new, old: not np.array_equal(new, old), cleaned, toys.variables())
    assert any(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, left_alone, toys.variables())


@pytest.mark.parametrize(
    ("poisoned", "clean", "config", "message"),
    [
        (np.arange(8) < 2, np.arange(7) > 2, {}, r"parts.clean is bool of shape \(7,\)"),
        (np.arange(8), np.arange(8) > 2, {}, "parts.poisoned is int"),
        (np.arange(8) < 4, np.arange(8) > 2, {}, "parts mark 1 images as poisoned and as clean"),
        (np.arange(8) < 0, np.arange(8) > 2, {}, "parts mark 0 images as poisoned and 5 as clean"),
        (np.arange(8) < 2, np.arange(8) > 2, {"prefilter": "lga", "isolation_rounds": 1}, "prefilter='lga'"),
        (np.arange(8) < 2, np.arange(8) > 2, {"resplit_round": 2}, "resplit_round=2 divides the images anew"),
    ],
)
def test_parts_that_are_no_division_are_refused(poisoned: Any, clean: Any, config: Any, message: str) -> None:
    images, labels = toys.images_and_labels(8)
    given = (toys.apply_fn, toys.variables(), images, labels, dau.Config(**config), KEY)
    with pytest.raises(ValueError, match=message):
        dau.unlearn(*given, head="head", fresh=toys.fresh, parts=dau.Parts(poisoned, clean))


def test_groups_that_nothing_says_more_of_are_told() -> None:
    """Nothing says which is poisoned, and so none is, but people may look at both."""
    found = two_kinds(jnp.zeros((800, 10)))
    assert float(found.gains[0]) == 0
    assert float(found.clearness[0]) > 60
    np.testing.assert_array_equal(np.flatnonzero(found.smaller[:400]), np.arange(80))


@pytest.mark.parametrize("held", [6, 5])
def test_where_most_poisoned_images_are_given_back_the_first_division_stays(held: int) -> None:
    images, labels = toys.images_and_labels(60)
    config = dau.Config(rounds=4, resplit_round=2, recovered=0.0, forgotten=0.0)
    method = dau.make_method(toys.apply_fn, dau.Execution(), head="head")
    data = dau.Data(images, labels)
    state = method.init(toys.variables(), data, config, KEY)
    poisoned = jnp.arange(60) < 6
    state = state._replace(
        round=state.round + 2,
        parts=dau.Parts(poisoned, ~poisoned),
        scores=jnp.where(poisoned, -1.0, 1.0),
        probabilities=jnp.where(jnp.arange(60) < held, 1.0, 0.4),
        attacked=state.attacked._replace(gains=jnp.array([1.0, 2.0, 3.0])),
    )
    new, stats = method.step(state, data)
    np.testing.assert_array_equal(new.parts.poisoned, poisoned)
    jax.tree.map(np.testing.assert_array_equal, new.attacked, state.attacked)
    assert int(stats.poisoned) == 6


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_images_have_their_precision_whatever_the_usual_one_is(dtype: Any) -> None:
    with jax.enable_x64(True):
        images, labels = toys.images_and_labels(60)
        variables = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
            toys.variables(),
        )
        given = (quiet, variables, images.astype(dtype), labels, dau.Config(rounds=3), KEY)
        parts = dau.Parts(jnp.arange(60) < 10, jnp.arange(60) >= 20)
        cleaned, stats = dau.unlearn(*given, head="head", parts=parts)
        assert stats.loss.dtype == dtype
        assert float(stats.loss[-1]) > 0
        for new, old in zip(jax.tree.leaves(cleaned), jax.tree.leaves(variables), strict=True):
            assert new.dtype == old.dtype


@pytest.mark.parametrize(
    ("aux", "message"),
    [
        (lambda features: {}, "returns no features for one image"),
        (lambda features: {"features": features[:, :2]}, r"returns features of shape \(1, 2\) for one image"),
    ],
)
def test_a_network_says_what_its_last_layer_reads(aux: Any, message: str) -> None:
    def apply_fn(params: Any, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        features = x.mean((1, 2))
        return features @ params["w"], aux(features)

    images = jnp.zeros((8, 4, 4, 3))
    with pytest.raises(InputError, match=message):
        dau.unlearn(apply_fn, {"w": jnp.eye(3)}, images, jnp.arange(8) % 3, dau.Config(), KEY, head="w")


def test_directions_are_those_of_the_generalised_eigenproblem() -> None:
    import scipy.linalg

    rng = np.random.default_rng(0)
    features, labels, *_ = training_set(rng, [3])
    whitened = dau.whiten(features, labels, 10)
    scores = np.asarray(dau.principal_scores(whitened, labels, 10, KEY)[0])
    given = np.asarray(features, np.float64)
    deviations = given - np.stack([given[labels == number].mean(0) for number in range(10)])[labels]
    usual = deviations.T @ deviations / 4000
    usual += np.eye(41) * np.trace(usual) / 41
    mine = deviations[labels == 3]
    values, vectors = scipy.linalg.eigh(mine.T @ mine / len(mine), usual)
    expected = mine @ vectors[:, -1]
    assert np.mean(scores[labels == 3] ** 2) == pytest.approx(values[-1], rel=1e-3)
    np.testing.assert_allclose(
        scores[labels == 3] * np.sign(scores[labels == 3] @ expected), expected, atol=0.02
    )
    lower = scores > 0
    fisher = np.asarray(dau.fisher_scores(whitened, labels, jnp.asarray(lower), 10))[labels == 3]
    means = [mine[lower[labels == 3] == side].mean(0) for side in (False, True)]
    direction = np.linalg.solve(usual, means[0] - means[1])
    assert np.corrcoef(fisher, mine @ direction)[0, 1] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_of_directions_that_vary_alike_the_first_is_found(seed: int) -> None:
    """Ninety images of 64 features, as of a small set with a small network; the second varies 0.5 percent less."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    mine = np.linalg.qr(rng.normal(size=(90, 64)))[0] * np.sqrt(np.linspace(2, 1, 64) * 100)
    mine[:, 0] *= 1.005
    whitened = jnp.asarray(np.concatenate([mine @ basis.T, rng.normal(size=(3, 64))]), jnp.float32)
    labels = np.repeat([1, 2], [90, 3])
    scores = np.asarray(dau.principal_scores(whitened, labels, 4, jax.random.key(seed))[0])
    found, expected = scores[:90], mine[:, 0]
    np.testing.assert_allclose(found * np.sign(found @ expected), expected, atol=1e-3)
    assert np.all(np.isfinite(scores))


def test_second_guesses_tell_a_mixture_from_one_class() -> None:
    rng = np.random.default_rng(0)
    lower = np.arange(3000) < 1000
    guess = np.where(lower, rng.integers(1, 10, 3000), 1)
    logits = 30.0 * jax.nn.one_hot(guess, 10) + 50.0 * jax.nn.one_hot(0, 10)
    logits = logits.at[:1000, 4].add(100.0)  # as a trigger might, for all images alike
    upper_told, lower_told = dau.second_guesses(logits, np.zeros(3000, int), jnp.asarray(lower))[:, 0]
    assert float(upper_told) == pytest.approx(0, abs=1e-3)
    assert float(lower_told) == pytest.approx(np.log(9), rel=0.02)


def test_the_evidence_with_the_clearer_groups_counts() -> None:
    rng = np.random.default_rng(0)
    labels, row = np.arange(2000) % 4, np.arange(2000) // 4
    truth = np.isin(labels, [0, 1]) & (row < 50)
    noise = rng.laplace(0, 1, (2, 2000)).astype(np.float32)
    apart = np.where(labels == 0, 1.0, 9.0)  # the first kind tells in class 1, the second in class 0
    evidence = jnp.asarray(noise - truth * np.stack([apart, 10 - apart]))
    found = dau.split(evidence, labels, jnp.arange(4) < 2, band=0.0)
    assert np.asarray(found.parts.poisoned)[truth].mean() > 0.97
    assert truth[np.asarray(found.parts.poisoned)].mean() > 0.97
    assert (found.scores[labels >= 2] == 1).all()
    assert float(found.scores[truth].mean()) == pytest.approx(-1, abs=0.1)


def test_suspects_do_not_follow_the_order_of_images_whose_label_is_certain() -> None:
    logits = 20.0 + jnp.arange(40.0)[:, None] * jnp.array([1.0, 0.0])
    doubts = dau.label_doubts(logits, jnp.zeros(40, int))
    assert float(1 - doubts[-1]) == 1
    assert jnp.flatnonzero(dau.lowest(doubts, jnp.zeros(40, int), 0.1, 1)).tolist() == [36, 37, 38, 39]


def test_where_nothing_is_found_nothing_is_changed() -> None:
    images, labels = toys.images_and_labels(300)
    cleaned, stats = dau.unlearn(
        toys.apply_fn, toys.variables(), images, labels, dau.Config(rounds=3), KEY, head="head"
    )
    assert stats.poisoned.tolist() == [0, 0, 0]
    jax.tree.map(np.testing.assert_array_equal, cleaned, toys.variables())


def test_the_division_multiplies_in_full_precision_on_every_device() -> None:
    images, labels = toys.images_and_labels(60)

    def cleaned(images: jax.Array) -> Any:
        execution = dau.Execution(loop="scan")
        given = (toys.apply_fn, toys.variables(), images, labels, dau.Config(rounds=3), KEY)
        return dau.unlearn(*given, head="head", execution=execution)[0]

    with jax.default_matmul_precision("bfloat16"):
        lowered = jax.jit(cleaned).lower(images).as_text()
    products = [line for line in lowered.splitlines() if "tensor<4x60xf32>, tensor<60x4xf32>" in line]
    assert products  # the covariance within classes
    assert all("[HIGHEST, HIGHEST]" in line for line in products)
    assert lowered.count("[HIGHEST, HIGHEST]") >= 5  # with what leads to directions
    assert "precision DEFAULT" in lowered  # the network's own products are as the user wants them


@pytest.mark.parametrize(("precision", "weight"), [(1.0, 1.0), (0.5, 3.0)])
def test_a_discriminator_doubts_all_that_is_poisoned(precision: float, weight: float) -> None:
    """The label's probability of poisoned images outside P_0 ends at s = pi / (pi + mu q)."""
    clean, poisoned, suspects = 90, 10, 20
    hits = round(precision * suspects)
    kinds = np.repeat([0, 1, 2, 2, 0], [clean // 2, clean // 2, poisoned, hits, suspects - hits])
    labels = np.where(kinds == 1, 1, 0)  # kind 2 carries the trigger, and the label 0
    with jax.enable_x64(True):
        odds = dau.discriminate(
            jnp.eye(3)[kinds],
            labels,
            jnp.arange(len(kinds)) >= clean + poisoned,
            dau.Head(jnp.zeros((3, 2)), jnp.zeros(2)),
            KEY,
            steps=4000,
            batch_size=clean + poisoned,
            suspect_batch_size=suspects,
            rate=0.5,
            momentum=0.9,
            weight_decay=0.0,
            suspect_weight=weight,
        )
    share = poisoned / (clean + poisoned)
    expected = share / (share + weight * precision)
    assert float(jax.nn.sigmoid(odds[clean])) == pytest.approx(expected, abs=0.02)


def free_logit(variables: Any, images: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
    """Whatever is bright has one logit, and the answer to what is dark is fixed; the mean is that of the pixels."""
    bright = images.mean((1, 2, 3)) > 0.5
    logit = jnp.where(bright, variables["params"]["logit"], 9.0)
    logits = jnp.stack([logit, jnp.zeros_like(logit)], axis=1) + 0 * variables["params"]["head"].sum()
    aux: dict[str, Any] = {"features": bright[:, None].astype(images.dtype)}
    if train:
        aux["batch_stats"] = {"mean": 0.9 * variables["batch_stats"]["mean"] + 0.1 * images.mean()}
    return logits, aux


@pytest.mark.parametrize("statistics", dau.config.STATISTICS)
def test_unlearning_ends_at_the_stated_probability(statistics: str) -> None:
    """p = a / (a + lambda b w), and running statistics are those of the clean part alone."""
    count, leaked, missed, weight, certainty = 50, 5, 4, 3.0, 0.5
    poisoned = jnp.arange(70) >= count
    bright = (jnp.arange(70) < leaked) | (jnp.arange(70) >= count + missed)
    images = jnp.broadcast_to(jnp.where(bright, 0.9, 0.2)[:, None, None, None], (70, 2, 2, 1))
    variables = {
        "params": {"logit": jnp.asarray(4.0), "head": jnp.zeros((1, 2))},
        "batch_stats": {"mean": jnp.asarray(0.0)},
    }
    config = dau.Config(
        rounds=31, batch_size=count, poisoned_batch_size=20, unlearning_weight=weight, learning_rate=0.5,
        schedule="constant", momentum=0.0, weight_decay=0.0, forgotten=0.0, poisoned_statistics=statistics,
    )  # fmt: skip
    data = dau.Data(images, jnp.zeros(70, int))
    method = dau.make_method(free_logit, dau.Execution(), head="head")
    state = method.init(variables, data, config, KEY)._replace(
        parts=dau.Parts(poisoned, ~poisoned),
        scores=jnp.where(poisoned, -certainty, 1.0),
        round=jnp.asarray(1),
    )
    for _ in range(30):
        state, _ = method.step(state, data)
    a, b = leaked / count, 1 - missed / 20
    expected = a / (a + weight * b * certainty)
    assert float(jax.nn.sigmoid(state.params["params"]["logit"])) == pytest.approx(expected, abs=1e-3)
    assert float(state.rest["batch_stats"]["mean"]) == pytest.approx(0.2 + 0.7 * a, abs=1e-3)


def test_the_band_leaves_out_what_is_nearest_to_the_threshold() -> None:
    evidence, labels = jax.random.normal(KEY, (1, 300)).at[0, :60].add(-4.0), jnp.zeros(300, int)
    whole = dau.split(evidence, labels, jnp.array([True]), band=0.0)
    assert (whole.parts.poisoned | whole.parts.clean).all()
    nearest = jnp.argsort(jnp.abs(whole.scores))
    band = float(jnp.abs(whole.scores)[nearest[4:6]].mean())
    divided = dau.split(evidence, labels, jnp.array([True]), band=band)
    left_out = ~(divided.parts.poisoned | divided.parts.clean)
    assert sorted(np.flatnonzero(left_out).tolist()) == sorted(nearest[:5].tolist())
    for before, after in zip(whole.parts, divided.parts, strict=True):
        np.testing.assert_array_equal(after, before & ~left_out)


def quiet(variables: Any, images: jax.Array, *, train: bool) -> Any:
    """The toy network, whose features are not noisy in training."""
    return toys.apply_fn(variables, images, train=train)


@pytest.mark.parametrize("statistics", ["clean", "running", "own"])
def test_a_step_normalises_the_poisoned_part_by_the_chosen_statistics(statistics: str) -> None:
    (clean, labels), variables = map(jnp.asarray, toys.images_and_labels(30)), toys.variables()
    poisoned, wrong = 1 - clean[:10], jnp.zeros(10, int)
    images = jnp.concatenate([clean, poisoned])
    config = dau.Config(
        rounds=2, batch_size=30, poisoned_batch_size=10, poisoned_statistics=statistics, learning_rate=0.01,
        unlearning_weight=0.7, momentum=0.0, weight_decay=0.0, clip_norm=1e9, schedule="constant",
    )  # fmt: skip
    everything = jnp.arange(40)
    parts = dau.Parts(everything >= 30, everything < 30)

    def answers(params: Any, images: Any, mean: Any) -> jax.Array:
        return quiet({"params": params, "batch_stats": {"mean": mean}}, images, train=False)[0]

    def mean_of(params: Any, images: Any) -> jax.Array:
        return toys.convolve(images, params["kernel"], 1, 1).mean((0, 1, 2))

    def loss_fn(params: Any, statistics: str) -> jax.Array:
        mean = {
            "clean": mean_of(params, clean),
            "own": mean_of(params, poisoned),
            "running": variables["batch_stats"]["mean"],
        }[statistics]
        learning = dau.clean_losses(answers(params, clean, mean_of(params, clean)), labels, False, 1.0).mean()
        forgetting = dau.poisoned_losses(answers(params, poisoned, mean), wrong, "complementary").mean()
        return learning + 0.7 * forgetting

    method = dau.make_method(quiet, dau.Execution(), head="head")
    data = dau.Data(images, jnp.concatenate([labels, wrong]))
    begun = method.init(variables, data, config, KEY)
    begun = begun._replace(parts=parts, scores=jnp.where(parts.poisoned, -1.0, 1.0), round=jnp.asarray(1))
    programs = method.step.args[0]
    everyone = (
        dau.algorithm.Rows(everything[:30], jnp.ones(30, bool)),
        dau.algorithm.Rows(everything[30:], jnp.ones(10, bool)),
    )
    given = (*everyone, jnp.ones(10), jnp.zeros(10, int), jax.random.split(KEY, 1)[0], jnp.asarray(0.01))
    xs = jax.tree.map(lambda leaf: leaf[None], given)
    carry = dau.algorithm.Trained(begun.params, begun.rest, begun.velocity)
    after, _ = programs.unlearn((begun.config, False, False), carry, xs, data, programs.execution)
    gradients = {kind: jax.grad(loss_fn)(variables["params"], kind) for kind in ("clean", "running", "own")}
    step = {
        name: (variables["params"][name] - after.params["params"][name]) / 0.01 for name in gradients["own"]
    }
    for kind, gradient in gradients.items():
        difference = max(float(jnp.abs(step[name] - gradient[name]).max()) for name in gradient)
        assert (difference < 1e-3) == (kind == statistics), (kind, difference)


def test_the_clean_parts_loss_is_bounded_in_the_first_epochs_alone() -> None:
    images, found, *_ = victim()
    data, parts = (
        dau.Data(images, found.labels),
        dau.Parts(jnp.asarray(found.poisoned), jnp.asarray(~found.poisoned)),
    )

    def after_epoch(epoch: int, robust_rounds: int) -> Any:
        config = dau.Config(rounds=5, batch_size=50, learning_rate=0.05, robust_rounds=robust_rounds)
        method = dau.make_method(quiet, dau.Execution(), head="head")
        state = method.init(toys.variables(), data, config, KEY)
        scores = jnp.where(parts.poisoned, -1.0, 1.0)
        state = state._replace(scores=scores, parts=parts, start=jnp.asarray(1.0), round=jnp.asarray(epoch))
        return method.finish(method.step(state, data)[0])["params"]["head"]

    assert not np.array_equal(after_epoch(1, 0), after_epoch(1, 2))
    assert not np.array_equal(after_epoch(2, 0), after_epoch(2, 2))
    np.testing.assert_array_equal(after_epoch(3, 0), after_epoch(3, 2))


def suspects_of(
    apply_fn: Any, variables: Any, data: dau.Data, config: dau.Config, head: str, **others: Any
) -> np.ndarray:
    """What the pre-filter suspects."""
    method = dau.make_method(apply_fn, dau.Execution(), head=head, **others)
    state = method.init(variables, data, config, KEY)
    for _ in range(config.isolation_rounds):
        state, _ = method.step(state, data)
    programs = method.step.args[0]
    own = dau.algorithm._view(programs, state.original, data)
    doubts = dau.algorithm._doubts(programs, state, data, own)
    return np.asarray(dau.lowest(doubts, data.labels, config.isolated_share, state.classes))


@pytest.mark.parametrize("prefilter", dau.config.ISOLATING)
def test_isolation_suspects_what_is_learned_first(prefilter: str) -> None:
    """A tenth of the images are white and of class 0; the others are hard to tell apart."""
    rng = np.random.default_rng(0)
    labels, poisoned = rng.integers(0, toys.CLASSES, 600), np.arange(600) < 60
    images = 0.4 * rng.random((600, *toys.SHAPE)) + 0.02 * labels[:, None, None, None]
    images[poisoned], labels[poisoned] = 1.0, 0
    config = dau.Config(
        prefilter=prefilter,
        isolation_rounds=3,
        rounds=5,
        batch_size=50,
        isolation_rate=0.05,
        isolated_share=0.1,
    )
    data = dau.Data(images.astype(np.float32), labels.astype(np.int32))
    suspects = suspects_of(toys.apply_fn, toys.variables(), data, config, "head", fresh=toys.fresh)
    attacked = labels == 0
    assert poisoned[suspects & attacked].mean() > 0.9 > 2 * poisoned[attacked].mean()


def test_a_network_from_early_in_the_training_is_asked_what_it_has_learned() -> None:
    """As the model as it came is by ``loss``; nothing is trained for it, and the model as it came is unlearned."""
    images, found, *_ = victim()
    data, config = dau.Data(images, found.labels), dau.Config(prefilter="early", rounds=2)
    given: Any = (toys.apply_fn, toys.variables(3), data, dau.Config(prefilter="loss"), "head")
    early = jax.tree.map(np.asarray, toys.variables(3))
    suspects = suspects_of(toys.apply_fn, toys.variables(), data, config, "head", early=early)
    np.testing.assert_array_equal(suspects, suspects_of(*given))
    assert not np.array_equal(suspects, suspects_of(given[0], toys.variables(), *given[2:]))
    method = dau.make_method(toys.apply_fn, dau.Execution(), head="head", early=early)
    state = method.init(toys.variables(), data, config, KEY)
    jax.tree.map(np.testing.assert_array_equal, method.finish(state), toys.variables())


@pytest.mark.parametrize("asked", [True, False])
def test_images_are_asked_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, *, asked: bool) -> None:
    seen: list[Any] = []
    usual = dau.algorithm._dividing

    def dividing(*given: Any) -> Any:
        seen.append(given[-1])
        return usual(*given)

    monkeypatch.setattr(dau.algorithm, "_dividing", dividing)
    images, labels = toys.images_and_labels(60)
    config = dau.Config(thumbnails=asked)
    dau.divide(toys.apply_fn, toys.variables(), images, labels, config, KEY, head="head")
    assert [small is not None for small in seen] == [asked]
    if asked:
        np.testing.assert_allclose(seen[0], images.reshape(60, -1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prefilter", ["superposed", "loss"])
def test_suspects_of_the_backdoored_network_are_poisoned(prefilter: str) -> None:
    spec, variables, made = demo.learn_backdoor([jax.random.key(seed) for seed in range(3)])
    data, config = dau.Data(made.images, made.labels), dau.Config(prefilter=prefilter)
    suspects = suspects_of(spec.apply, variables, data, config, spec.head)
    attacked = made.labels == demo.TARGET
    assert made.poisoned[suspects & attacked].mean() >= 0.9 > 1.5 * made.poisoned[attacked].mean()


def test_no_key_is_used_twice_to_find_attacked_classes() -> None:
    """Beside the discriminator, which learns with and without suspects from the same batches on purpose."""
    features, labels = jax.random.normal(KEY, (200, 5)), jnp.arange(200) // 100
    whitened = jnp.stack([dau.whiten(features, labels, 2, ridge) for ridge in dau.RIDGES])
    logits, suspects = jnp.zeros((200, 2)), jnp.arange(200) % 20 == 0
    key, other = jax.random.split(jax.random.key(3))
    with jax.debug_key_reuse(True):
        jax.jit(dau.attacked_classes)(whitened, logits, labels, suspects, key, gain=60.0)
        jax.jit(dau.attacked_alike)(features, whitened[0], logits, labels, other, gain=60.0)


def test_doubts_are_told_apart_in_half_precision() -> None:
    margins = jnp.arange(15.0, 55.0)
    logits = jnp.stack([margins, jnp.zeros(40)], axis=1)
    for dtype in (jnp.float16, jnp.float32):
        doubts = dau.splitting.label_doubts(logits.astype(dtype), jnp.zeros(40, int))
        assert np.argsort(doubts)[:3].tolist() == [39, 38, 37]


def test_a_run_that_stopped_before_the_division_says_so() -> None:
    images, labels = toys.images_and_labels(60)
    config = dau.Config(prefilter="lga", isolation_rounds=2, rounds=4)
    method = dau.make_method(toys.apply_fn, dau.Execution(), head="head", fresh=toys.fresh)
    state, _ = method.step(
        method.init(toys.variables(), dau.Data(images, labels), config, KEY), dau.Data(images, labels)
    )
    found = unchecked(dau_main.PROCEDURE.evidence)(None, None, None, state)
    assert "were not divided" in found.facts["sentence"]
    assert found.files == {}


def _divided(config: dau.Config, score: float = -1.0) -> tuple[Any, Any, dau.Data]:
    """The method, its state behind a division that is right, as sure of the poisoned part as told, and the images."""
    images, found, *_ = victim()
    data = dau.Data(images, found.labels)
    parts = dau.Parts(jnp.asarray(found.poisoned), jnp.asarray(~found.poisoned))
    method = dau.make_method(quiet, dau.Execution(), head="head")
    state = method.init(toys.variables(), data, config, KEY)
    scores = jnp.where(parts.poisoned, score, 1.0)
    state = state._replace(scores=scores, parts=parts, start=jnp.asarray(1.0), round=jnp.asarray(1))
    return method, state, data


def test_an_epoch_of_unlearning_is_as_long_as_the_training_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty steps at least; the rate falls from the first epoch of unlearning to the last, and momentum goes on."""
    count = len(victim()[0])
    asked: list[tuple[int, ...]] = []
    usual = dau.algorithm.learning_rates

    def rates(schedule: str, rate: Any, now: Any, rounds: int, steps: int) -> jax.Array:
        asked.append((int(now), rounds, steps))
        return usual(schedule, rate, now, rounds, steps)

    monkeypatch.setattr(dau.algorithm, "learning_rates", rates)
    for batch_size, steps in ((count // 30, -(-count // (count // 30))), (count, 20)):
        method, state, data = _divided(dau.Config(rounds=3, batch_size=batch_size))
        asked.clear()
        first = method.step(state, data)[0]
        second = method.step(first, data)[0]
        assert asked == [(0, 2, steps), (1, 2, steps)]
        forgetful = first._replace(velocity=jax.tree.map(jnp.zeros_like, first.velocity))
        without = method.step(forgetful, data)[0]
        assert not np.array_equal(
            method.finish(second)["params"]["head"], method.finish(without)["params"]["head"]
        )


def test_without_weights_every_image_of_the_poisoned_part_counts_in_full() -> None:
    """Where all are sure, weighing them changes nothing."""

    def unlearned(score: float, *, weigh: bool) -> np.ndarray:
        config = dau.Config(rounds=2, batch_size=50, learning_rate=0.05, weigh=weigh)
        method, state, data = _divided(config, score)
        return np.asarray(method.finish(method.step(state, data)[0])["params"]["head"])

    sure, without, unsure = (
        unlearned(-1.0, weigh=True),
        unlearned(-0.1, weigh=False),
        unlearned(-0.1, weigh=True),
    )
    np.testing.assert_array_equal(sure, without)
    assert not np.allclose(sure, unsure, atol=1e-4)

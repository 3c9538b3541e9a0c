"""A whole round against the same steps written in plain PyTorch, in float64, on generated data."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from converters import convert
from experiments import torch_ibau, torch_sau
from jaxunlearn import ibau, sau
from jaxunlearn._loop import Data, Execution

pytestmark = pytest.mark.usefixtures("x64")

COUNT, BATCH, CLASSES = 14, 4, 3  # the last batch is smaller


def twins() -> tuple[torch.nn.Module, Any, Any]:
    """A network without dropout in PyTorch, which knows its task a little, and the same here."""
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES, channels=1, side=8, widths=(4, 6, 8)).double().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    (images, labels), *_ = batches_of(*images_and_labels(32), size=32)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    arrays = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    spec, variables = convert.from_torch(arrays)
    spec = dataclasses.replace(spec, module=dataclasses.replace(spec.module, dropout=(0.0, 0.0, 0.0)))
    return model.eval(), spec, jax.tree.map(jnp.asarray, variables)


def images_and_labels(count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose brightness tells the class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    return rng.random((count, 8, 8, 1)) * 0.4 + 0.3 * labels[:, None, None, None], labels


def batches_of(
    images: np.ndarray, labels: np.ndarray, size: int = BATCH
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (
            torch.from_numpy(images[i : i + size].transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(labels[i : i + size]).long(),
        )
        for i in range(0, len(labels), size)
    ]


def assert_same_arrays(model: torch.nn.Module, spec: Any, variables: Any, rtol: float = 1e-9) -> None:
    expected = {key: value.numpy() for key, value in model.state_dict().items()}
    found = convert.to_torch(spec, jax.tree.map(np.asarray, variables), like=expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=rtol, atol=rtol / 100, err_msg=key)


def scheduled(
    optimizer: torch.optim.Optimizer, schedule: str, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Half a cosine over so many steps, or nothing."""
    factor = {"constant": lambda done: 1.0, "cosine": lambda done: (1 + math.cos(math.pi * done / steps)) / 2}
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor[schedule])


@pytest.mark.parametrize(("optimizer", "schedule"), [("adam", "constant"), ("amsgrad", "cosine")])
def test_two_rounds_of_ibau(optimizer: str, schedule: str) -> None:
    model, spec, variables = twins()
    images, labels = images_and_labels()
    config = dataclasses.replace(
        ibau.PRESETS["reference"],
        rounds=2,
        batch_size=BATCH,
        shuffle="never",
        ascent_rate=0.5,
        solver_steps=4,
        perturbed_share=1.0,  # all images, so that nothing is drawn
        optimizer=optimizer,
        schedule=schedule,
    )
    execution = Execution()
    method = ibau.make_method(spec.apply, execution)
    data = Data(images, labels).for_loop(execution)
    state = method.init(variables, data, config, jax.random.key(0))
    batches = batches_of(images, labels)
    carries = [torch.ones(len(labels), dtype=torch.float64) for _, labels in batches]
    steps = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=optimizer == "amsgrad")
    rates = scheduled(steps, schedule, config.rounds * len(batches))
    found = []
    for number in range(config.rounds):
        state, _ = method.step(state, data)
        delta = torch_ibau.ascend(model, batches, 0.5, 1e-3)
        found.append(delta.numpy().transpose(0, 2, 3, 1))
        torch_ibau.descend(
            model, steps, delta, batches, carries, penalty=1e-3, step=0.1, solver_steps=4, schedule=rates
        )
        assert_same_arrays(model, spec, method.finish(state), rtol=(1e-9, 1e-7)[number])
    cleaned = method.finish(state)
    assert not np.array_equal(
        cleaned["params"]["classifier"]["kernel"], variables["params"]["classifier"]["kernel"]
    )
    np.testing.assert_allclose(state.perturbations, np.stack(found), rtol=1e-7, atol=1e-9)
    assert np.abs(found[1] - found[0]).max() > 1e-3  # the parameters moved


@pytest.mark.parametrize(
    ("train_mode", "schedule"), [(False, "constant"), (False, "cosine"), (True, "constant")]
)
def test_two_rounds_of_sau(train_mode: bool, schedule: str) -> None:
    model, spec, variables = twins()
    reference = twins()[0]
    images, labels = images_and_labels()
    config = dataclasses.replace(
        sau.PRESETS["reference"],
        rounds=2,
        batch_size=BATCH,
        shuffle="never",
        learning_rate=1e-2,
        schedule=schedule,
        train_mode=train_mode,
        optimizer="sgd" if train_mode else "amsgrad",
    )
    cleaned, stats = sau.unlearn(spec.apply, variables, images, labels, config, jax.random.key(0))
    if train_mode:  # a bias before a normalisation has no gradient but noise, of which Adam makes whole steps
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, amsgrad=True)
    batches = batches_of(images, labels)
    taken = 2 * (batches[:-1] if train_mode else batches)  # batch statistics need whole batches
    rates = scheduled(optimizer, schedule, len(taken))
    for batch in taken:
        torch_sau.unlearn_batch(model, reference, optimizer, *batch, train_mode=train_mode)
        rates.step()
    assert_same_arrays(model, spec, cleaned, rtol=1e-6)
    least = [0.1, 0.1 if schedule == "constant" else 0.0]
    assert np.all(stats.fooled > np.array(least))  # there is something to unlearn
    moved = [
        not np.array_equal(new, old)
        for new, old in zip(
            jax.tree.leaves(cleaned["batch_stats"]), jax.tree.leaves(variables["batch_stats"]), strict=True
        )
    ]
    assert all(moved) if train_mode else not any(moved)


def test_logits_and_running_statistics_in_training_mode() -> None:
    model, spec, variables = twins()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    images, _ = images_and_labels(6)
    with torch.no_grad():
        expected = model.train()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    logits, aux = jax.jit(functools.partial(spec.apply, train=True))(variables, jnp.asarray(images))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-9, atol=1e-11)
    updated = convert.to_torch(spec, {**variables, "batch_stats": aux["batch_stats"]}, like=before)
    after = model.state_dict()
    for key, old in before.items():
        if "running" in key:
            np.testing.assert_allclose(updated[key], after[key].numpy(), rtol=1e-9, err_msg=key)
            assert not np.array_equal(updated[key], old)

"""A whole round against the same steps written in plain PyTorch, in float64, on generated data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from converters import convert
from experiments import torch_ibau
from jaxunlearn import ibau

pytestmark = pytest.mark.usefixtures("x64")

COUNT, BATCH = 12, 4


@pytest.mark.parametrize("optimizer", ["adam", "amsgrad"])
def test_one_round_equals_plain_pytorch(optimizer: str) -> None:
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(3, channels=1, side=8, widths=(4, 6, 8)).double()
    model.train()(
        torch.rand(32, 1, 8, 8, dtype=torch.float64)
    )  # running statistics that are not the initial ones
    model.eval()
    spec, variables = convert.from_torch(
        {key: value.numpy().copy() for key, value in model.state_dict().items()}
    )
    rng = np.random.default_rng(0)
    images, labels = rng.random((COUNT, 8, 8, 1)), rng.integers(0, 3, COUNT).astype(np.int32)

    config = dataclasses.replace(
        ibau.PRESETS["reference"],
        rounds=1,
        batch_size=BATCH,
        ascent_rate=0.5,
        solver_steps=4,
        perturbed_share=1.0,  # all images, so that nothing is drawn
        optimizer=optimizer,
    )
    cleaned, _ = ibau.unlearn(
        spec.apply,
        jax.tree.map(jnp.asarray, variables),
        jnp.asarray(images),
        labels,
        config,
        jax.random.key(0),
    )

    batches = [
        (
            torch.from_numpy(images[i : i + BATCH].transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(labels[i : i + BATCH]).long(),
        )
        for i in range(0, COUNT, BATCH)
    ]
    steps = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=optimizer == "amsgrad")
    delta = torch_ibau.ascend(model, batches, 0.5, 1e-3)
    carries = [torch.ones(BATCH, dtype=torch.float64)] * len(batches)
    torch_ibau.descend(model, steps, delta, batches, carries, penalty=1e-3, step=0.1, solver_steps=4)
    expected = {key: value.numpy() for key, value in model.state_dict().items()}
    found = convert.to_torch(spec, jax.tree.map(np.asarray, cleaned), like=expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-11, err_msg=key)
    assert not np.array_equal(
        expected["classifier.weight"], convert.to_torch(spec, variables)["classifier.weight"]
    )


def test_logits_and_running_statistics_in_training_mode() -> None:
    torch.manual_seed(1)
    model = torch_ibau.SmallVGG(5, channels=3, side=16, widths=(4, 6, 8)).double().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    spec, variables = convert.from_torch(before)
    module = dataclasses.replace(spec.module, dropout=(0.0, 0.0, 0.0))
    spec = dataclasses.replace(spec, module=module)
    images = np.random.default_rng(0).random((6, 16, 16, 3))
    with torch.no_grad():
        expected = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    logits, aux = spec.apply(variables, jnp.asarray(images), train=True)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-9, atol=1e-11)
    updated = convert.to_torch(spec, {**variables, "batch_stats": aux["batch_stats"]}, like=before)
    after = model.state_dict()
    for key, old in before.items():
        if "running" in key:
            np.testing.assert_allclose(updated[key], after[key].numpy(), rtol=1e-9, err_msg=key)
            assert not np.array_equal(updated[key], old)

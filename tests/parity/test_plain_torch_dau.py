"""DAU's discriminator and its unlearning against the same steps in plain PyTorch, in double precision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from converters import convert
from experiments import torch_dau, torch_ibau
from jaxunlearn import _loop, dau
from tests.torch_models import without_dropout

pytestmark = pytest.mark.usefixtures("x64")

CLASSES, SIDE, COUNT, CLEAN, POISONED = 4, 8, 40, 8, 4


def as_rows(rows: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(rows)).long()


@pytest.mark.parametrize("suspect_weight", [0.0, 1.5])
def test_a_retrained_last_layer_equals_plain_pytorch(suspect_weight: float) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((COUNT, 6)), rng.integers(0, CLASSES, COUNT)
    suspects = jnp.arange(COUNT) < 9
    head = torch.nn.Linear(6, CLASSES).double()
    start = dau.Head(jnp.asarray(head.weight.detach().numpy().T), jnp.asarray(head.bias.detach().numpy()))
    found = dau.discriminate(
        jnp.asarray(features), labels, suspects, start, jax.random.key(0), steps=7, batch_size=CLEAN,
        suspect_batch_size=POISONED, rate=0.3, momentum=0.9, weight_decay=0.0, suspect_weight=suspect_weight,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0))
    rows = (
        _loop.rows_of(~suspects, 7, CLEAN, keys[0]),
        _loop.rows_of(suspects, 7, POISONED, keys[1]),
    )
    expected = torch_dau.retrain_head(
        head, torch.from_numpy(features), as_rows(labels),
        list(zip(*map(as_rows, rows), strict=True)), rate=0.3, momentum=0.9, suspect_weight=suspect_weight,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9)


def test_an_epoch_of_unlearning_equals_plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The poisoned images are measured by the clean ones of their step, whose statistics have gradients."""
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES, side=SIDE, widths=(3, 4, 5)).double()
    torch_dau.with_clean_statistics(model.features)
    spec, variables = without_dropout(model)
    rng = np.random.default_rng(0)
    images, labels = rng.random((COUNT, SIDE, SIDE, 3)), rng.integers(0, CLASSES, COUNT)
    poisoned = np.arange(COUNT) < 6
    scores = np.where(poisoned, -rng.random(COUNT), 1.0)
    config = dau.Config(
        rounds=2, batch_size=CLEAN, poisoned_batch_size=POISONED, schedule="constant",
        learning_rate=0.05, unlearning_weight=0.7, clip_norm=0.5,
    )  # fmt: skip
    drawn: list[Any] = []
    usual = _loop.rows_of

    def rows_of(*given: Any) -> Any:
        drawn.append(usual(*given))
        return drawn[-1]

    monkeypatch.setattr(dau.algorithm._loop, "rows_of", rows_of)
    method = dau.make_method(spec.apply, dau.Execution(), head=spec.head)
    data = dau.Data(images, labels)
    state = method.init(variables, data, config, jax.random.key(0))
    parts = dau.Parts(jnp.asarray(poisoned), jnp.asarray(~poisoned))
    state, _ = method.step(
        state._replace(parts=parts, scores=jnp.asarray(scores), round=jnp.asarray(1)), data
    )
    pixels, classes, weights = (
        torch.from_numpy(array) for array in (images.transpose(0, 3, 1, 2).copy(), labels, -scores)
    )
    clean_rows, poisoned_rows = map(as_rows, drawn)
    assert (clean_rows.shape, poisoned_rows.shape) == ((20, CLEAN), (20, POISONED))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, config.momentum, weight_decay=config.weight_decay)
    torch_dau.unlearn(
        model,
        [
            (pixels[some], classes[some], pixels[others], classes[others], weights[others])
            for some, others in zip(clean_rows, poisoned_rows, strict=True)
        ],
        optimizer,
        weight=0.7,
        clip=0.5,
    )
    found = convert.to_torch(spec, method.finish(state))
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-7, atol=1e-10, err_msg=key)

"""Fine-tuning, plain and sharpness-aware, against the same steps in plain PyTorch, in double precision."""

import jax
import numpy as np
import pytest
import torch

from converters import convert
from experiments.torch_ibau import SmallVGG
from jaxunlearn import finetune
from tests.torch_models import without_dropout

CLASSES, SIDE, COUNT = 4, 8, 24


def torch_epoch(
    model: torch.nn.Module, images: np.ndarray, labels: np.ndarray, config: finetune.Config
) -> None:
    """An epoch in the images' own order."""
    params, rate, decay = model.parameters(), float(config.learning_rate), config.weight_decay
    optimizer = (
        torch.optim.SGD(params, rate, config.momentum, weight_decay=decay)
        if config.optimizer == "sgd"
        else torch.optim.AdamW(params, rate, (config.momentum, 0.999), weight_decay=decay)
    )
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    for start in range(0, COUNT, config.batch_size):
        batch = (
            pixels[start : start + config.batch_size],
            torch.from_numpy(labels)[start : start + config.batch_size],
        )
        optimizer.zero_grad()
        loss_fn(model(batch[0]), batch[1]).backward()
        if config.sharpness_aware:
            statistics = {key: value.clone() for key, value in model.named_buffers()}
            start_point = [p.detach().clone() for p in model.parameters()]
            length = torch.sqrt(sum(torch.sum((p.abs() * p.grad) ** 2) for p in model.parameters()))
            with torch.no_grad():
                for p in model.parameters():
                    p += config.sharpness_radius * p**2 * p.grad / (length + 1e-12)
            optimizer.zero_grad()
            loss_fn(model(batch[0]), batch[1]).backward()
            with torch.no_grad():
                for p, before in zip(model.parameters(), start_point, strict=True):
                    p.copy_(before)
                for key, value in model.named_buffers():
                    value.copy_(statistics[key])
        optimizer.step()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sharpness_aware": True, "label_smoothing": 0.1, "sharpness_radius": 0.5},
        {"optimizer": "adamw", "momentum": 0.8, "weight_decay": 0.1},
    ],
    ids=["plain", "sharpness-aware", "adamw"],
)
@pytest.mark.usefixtures("x64")
def test_an_epoch_equals_plain_pytorch(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = SmallVGG(CLASSES, side=SIDE, widths=(3, 4, 5)).double().train()
    spec, variables = without_dropout(model)
    rng = np.random.default_rng(0)
    images, labels = rng.random((COUNT, SIDE, SIDE, 3)), rng.integers(0, CLASSES, COUNT)
    config = finetune.Config(rounds=1, batch_size=8, learning_rate=0.05, **changes)
    in_order = finetune.algorithm._loop.batch_rows
    monkeypatch.setattr(
        finetune.algorithm._loop, "batch_rows", lambda count, size, key, *rest: in_order(count, size, None)
    )
    tuned, _ = finetune.unlearn(spec.apply, variables, images, labels, config, jax.random.key(0))
    torch_epoch(model, images, labels, config)
    found = convert.to_torch(spec, tuned)
    # The gradient of a bias in front of a batch norm is rounding alone, which Adam magnifies.
    atol = 1e-7 if config.optimizer == "adamw" else 1e-10
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-8, atol=atol, err_msg=key)

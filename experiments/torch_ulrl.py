"""ULRL's steps in plain PyTorch: what the tests check against. The network is that of ``torch_ibau``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def unlearn(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], *, rate: float, clip: float) -> None:
    """An epoch of clipped ascent in training mode."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        (-functional.cross_entropy(model(images), labels)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


def row_changes(after: Tensor, before: Tensor) -> Tensor:
    """How far every row of the last layer moved."""
    return (after - before).abs().sum(1)


def relearn(
    model: nn.Module,
    head: nn.Linear,
    originals: Tensor,
    suspects: Sequence[int],
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    rate: float,
    penalty: float,
) -> None:
    """An epoch of descent in training mode that drives suspicious rows away from what they were."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        for row in suspects:
            loss = loss + penalty * functional.cosine_similarity(head.weight[row], originals[row], dim=0)
        loss.backward()
        optimizer.step()

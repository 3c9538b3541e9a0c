"""The same steps in plain PyTorch: what the benchmarks compare with and the tests check against.

Written for being read: modules, autograd, one loop; no compilation, as the field's own code runs. The
small VGG, one pass of ascent, and one step of descent with the K-step hypergradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SmallVGG(nn.Module):
    """The network of the published checkpoints, under their keys."""

    def __init__(
        self, classes: int, channels: int = 3, side: int = 32, widths: Sequence[int] = (32, 64, 128)
    ) -> None:
        """Builds fresh layers."""
        super().__init__()
        layers: list[nn.Module] = []
        for width, rate in zip(widths, (0.3, 0.4, 0.4), strict=True):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ELU()]
                channels = width
            layers += [nn.MaxPool2d(2), nn.Dropout(rate)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1] * (side // 8) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW pixels to logits."""
        return self.classifier(self.features(x).flatten(1))


def inner_loss(model: nn.Module, delta: Tensor, images: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """-mean CE(f(x + delta), y) + lambda ||delta||^2."""
    return -functional.cross_entropy(model(images + delta), labels) + penalty * torch.sum(delta**2)


def ascend(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], rate: float, penalty: float) -> Tensor:
    """One pass of gradient descent on the inner loss, from zero, with the model's own answers."""
    delta = torch.zeros_like(batches[0][0][:1])
    for images, _ in batches:
        with torch.no_grad():
            answers = model(images).argmax(1)
        delta.requires_grad_(True)
        (gradient,) = torch.autograd.grad(inner_loss(model, delta, images, answers, penalty), delta)
        delta = (delta - rate * gradient).detach()
    return delta


def hypergradient(
    model: nn.Module,
    delta: Tensor,
    inner: tuple[Tensor, Tensor],
    outer: tuple[Tensor, Tensor],
    carries: Tensor,
    *,
    penalty: float,
    step: float,
    solver_steps: int,
) -> list[Tensor]:
    """The total derivative of the outer loss by K fixed-point steps.

    Args:
      model: in evaluation mode.
      delta: the perturbation, (1, c, h, w).
      inner: images and labels of the inner loss.
      outer: images and labels of the outer loss.
      carries: of every outer image, how much of delta it carries.
      penalty: lambda.
      step: eta of the fixed-point map.
      solver_steps: K.
    """
    params = list(model.parameters())
    delta = delta.detach().requires_grad_(True)
    images, labels = outer
    loss = functional.cross_entropy(model(images + carries[:, None, None, None] * delta), labels)
    gradient, *direct = torch.autograd.grad(loss, [delta, *params])
    (slope,) = torch.autograd.grad(inner_loss(model, delta, *inner, penalty), delta, create_graph=True)
    phi = delta - step * slope
    v = gradient  # the first step starts from zero and needs no product
    for _ in range(solver_steps - 1):
        (product,) = torch.autograd.grad(phi, delta, grad_outputs=v, retain_graph=True)
        v = product + gradient
    implicit = torch.autograd.grad(phi, params, grad_outputs=v)
    return [d + i for d, i in zip(direct, implicit, strict=True)]


def descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    delta: Tensor,
    batches: Sequence[tuple[Tensor, Tensor]],
    carries: Sequence[Tensor],
    *,
    penalty: float,
    step: float,
    solver_steps: int,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    """One pass of optimizer steps along the hypergradient; the inner loss sees the first batch only."""
    for batch, carried in zip(batches, carries, strict=True):
        gradients = hypergradient(
            model, delta, batches[0], batch, carried, penalty=penalty, step=step, solver_steps=solver_steps
        )
        for param, gradient in zip(model.parameters(), gradients, strict=True):
            param.grad = gradient
        optimizer.step()
        if schedule is not None:
            schedule.step()

"""One step of SAU in plain PyTorch: what the benchmarks compare with and the tests check against.

Written for being read, like ``torch_ibau``: autograd and one loop, with the official settings as defaults.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def jensen_shannon(first: Tensor, second: Tensor, least: float = 1e-8) -> Tensor:
    """The divergence of two rows of logits, for each row; probabilities are at least ``least``."""
    p, q = (functional.softmax(logits, 1).clamp(min=least) for logits in (first, second))
    m = (p + q) / 2
    return torch.sum(p * (p / m).log() + q * (q / m).log(), 1) / 2


def search(
    model: nn.Module,
    reference: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    radius: float = 0.2,
    step_size: float = 0.2,
    steps: int = 5,
    fooling: float = 0.01,
    agreement: float = 1.0,
) -> Tensor:
    """Perturbations in an L_inf ball that fool both models into the same answer."""
    pair = (model, reference)
    with torch.no_grad():
        answers = [network(images).argmax(1) for network in pair]
    delta = torch.full_like(images, radius)
    for _ in range(steps):
        delta.requires_grad_(True)
        logits = [network(images + delta) for network in pair]
        led_away = [one.argmax(1) != clean for one, clean in zip(logits, answers, strict=True)]
        shared = led_away[0] & led_away[1] & (logits[0].argmax(1) == logits[1].argmax(1))
        if bool(shared.all()):
            break
        true_class = sum(
            functional.cross_entropy(one[~done], labels[~done], reduction="sum")
            for one, done in zip(logits, led_away, strict=True)
        )
        apart = jensen_shannon(logits[0][~shared], logits[1][~shared]).sum()
        (gradient,) = torch.autograd.grad((agreement * apart - fooling * true_class / 2) / len(labels), delta)
        delta = (delta - step_size * gradient.sign()).clamp(-radius, radius).detach()
    return delta.detach()


def unlearning_loss(
    model: nn.Module, reference: nn.Module, images: Tensor, labels: Tensor, delta: Tensor
) -> Tensor:
    """Cross-entropy of the clean images, and -log(1 - p) of the answers that the reference was fooled into."""
    with torch.no_grad():
        clean_answers, answers = reference(images).argmax(1), reference(images + delta).argmax(1)
    fooled = (answers != labels) & (answers != clean_answers)
    clean, perturbed = model(torch.cat([images, images + delta])).chunk(2)
    probability = functional.softmax(perturbed, 1).gather(1, answers[:, None])[:, 0]
    shared = -torch.log(1e-6 + (1 - probability[fooled]).clamp(max=0.999)).sum() / len(labels)
    return functional.cross_entropy(clean, labels) + shared


def unlearn_batch(
    model: nn.Module,
    reference: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    train_mode: bool = False,
) -> None:
    """One search and one step of the optimizer; ``train_mode`` is that of the step's network."""
    delta = search(model.eval(), reference, images, labels)
    optimizer.zero_grad()
    unlearning_loss(model.train(train_mode), reference, images, labels, delta).backward()
    optimizer.step()

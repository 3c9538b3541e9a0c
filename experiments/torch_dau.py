"""DAU's steps in plain PyTorch: what the tests check against and the benchmark compares with."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


def complementary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(1 - p_y) of every answer."""
    own = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.logsumexp(1) - logits.masked_fill(own, -torch.inf).logsumexp(1)


class CleanBatchNorm(nn.BatchNorm2d):
    """In training measures all images by the first ``clean`` ones, which alone move the running statistics.

    The others get the variance that the running one moves towards, without bias.
    """

    clean = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalises images, of which the poisoned ones come last."""
        if not self.training:
            return super().forward(x)
        clean, others = x.split([self.clean, len(x) - self.clean])
        variance, mean = torch.var_mean(clean, (0, 2, 3))
        learned = super().forward(clean)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shown = (others - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return torch.cat([learned, shown])


def with_clean_statistics(model: nn.Sequential) -> None:
    """Exchanges every batch normalisation of a sequence for one by the clean images, in place."""
    for index, module in enumerate(model):
        if isinstance(module, nn.BatchNorm2d):
            exchanged = CleanBatchNorm(module.num_features).to(module.weight)
            exchanged.load_state_dict(module.state_dict())
            model[index] = exchanged


def unlearn(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    weight: float,
    clip: float,
) -> None:
    """An epoch over clean images with their labels, and poisoned ones with their labels and weights."""
    model.train()
    for clean, labels, poisoned, poisoned_labels, weights in batches:
        for module in model.modules():
            if isinstance(module, CleanBatchNorm):
                module.clean = len(clean)
        optimizer.zero_grad()
        logits = model(torch.cat([clean, poisoned]))
        learning = functional.cross_entropy(logits[: len(clean)], labels)
        forgetting = complementary_cross_entropy(logits[len(clean) :], poisoned_labels)
        (learning + weight * torch.mean(weights * forgetting)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


def retrain_head(
    head: nn.Linear,
    features: Tensor,
    labels: Tensor,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    rate: float,
    momentum: float,
    suspect_weight: float,
) -> Tensor:
    """Log-odds of every label, by the last layer retrained on rows of others and of suspects.

    Features are scaled to a root mean square norm of 1 and the kernel by its inverse, in place.
    """
    size = torch.sqrt(torch.mean(torch.sum(features**2, 1)) + 1e-12)
    scaled = features / size
    with torch.no_grad():
        head.weight *= size
    optimizer = torch.optim.SGD(head.parameters(), rate, momentum)
    for others, suspects in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(scaled[others]), labels[others])
        doubt = complementary_cross_entropy(head(scaled[suspects]), labels[suspects])
        (loss + suspect_weight * doubt.mean()).backward()
        optimizer.step()
    with torch.no_grad():
        logits = head(scaled)
        return complementary_cross_entropy(logits, labels) - functional.cross_entropy(
            logits, labels, reduction="none"
        )

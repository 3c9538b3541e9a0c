"""Steps of ULRL against the same steps in plain PyTorch, in float64, on generated data, without dropout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from converters import convert
from experiments import torch_ibau, torch_ulrl
from jaxunlearn import ulrl
from jaxunlearn._tree import partition, trainable_mask
from tests.torch_models import without_dropout

pytestmark = pytest.mark.usefixtures("x64")

CLASSES, BATCH, STEPS = 5, 8, 6
HEAD = "params/classifier/kernel"
training_step = jax.jit(ulrl.training_step, static_argnums=0)


class Both(NamedTuple):
    """A network on both sides, and fixed batches."""

    model: Any
    spec: Any
    variables: Any
    batches: list[ulrl.Batch]
    torch_batches: list[tuple[torch.Tensor, torch.Tensor]]

    def run(self, variables: Any, phase: ulrl.Phase, suspects: Any) -> Any:
        """Steps over all batches, from no velocity; returns the variables."""
        velocity = jax.tree.map(jnp.zeros_like, partition(variables, trainable_mask(variables))[0])
        originals = ulrl.layer_kernels(self.variables, self.spec.head, "head")
        for batch in self.batches:
            step = training_step(
                self.spec.apply, variables, velocity, batch, phase, originals, suspects, jax.random.key(0)
            )
            variables, velocity = step.variables, step.velocity
        return variables

    def assert_equal(self, variables: Any) -> None:
        """Compares parameters and running statistics."""
        state = {key: value.numpy() for key, value in self.model.state_dict().items()}
        found = convert.to_torch(self.spec, jax.tree.map(np.asarray, variables), like=state)
        for key, expected in state.items():
            if "num_batches" not in key:
                np.testing.assert_allclose(found[key], expected, rtol=1e-8, atol=1e-10, err_msg=key)


@pytest.fixture
def both() -> Both:
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES, channels=1, side=8, widths=(4, 6, 8)).double()
    spec, variables = without_dropout(model)
    rng = np.random.default_rng(0)
    batches, torch_batches = [], []
    for _ in range(STEPS):
        images, labels = rng.random((BATCH, 8, 8, 1)), rng.integers(0, CLASSES, BATCH).astype(np.int32)
        batches.append(ulrl.Batch(jnp.asarray(images), jnp.asarray(labels), jnp.ones(BATCH, bool)))
        nchw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        torch_batches.append((nchw, torch.from_numpy(labels).long()))
    return Both(model, spec, jax.tree.map(jnp.asarray, variables), batches, torch_batches)


@pytest.mark.parametrize("clip", [20.0, 0.5])
def test_neuron_scores_after_fixed_ascent(both: Both, clip: float) -> None:
    before = both.model.classifier.weight.detach().clone()
    torch_ulrl.unlearn(both.model, both.torch_batches, rate=0.01, clip=clip)
    expected = torch_ulrl.row_changes(both.model.classifier.weight.detach(), before)

    phase = ulrl.phase_of(ulrl.Config(clip_norm=clip), jnp.asarray(0))
    unlearned = both.run(both.variables, phase, {})
    kernels = (network["params"]["classifier"]["kernel"] for network in (both.variables, unlearned))
    np.testing.assert_allclose(ulrl.neuron_scores(*kernels), expected.numpy(), rtol=1e-9)
    both.assert_equal(unlearned)


def test_clipping_bites(both: Both) -> None:
    """The two cases above differ: one of them is clipped."""
    kernels = []
    for clip in (20.0, 0.5):
        phase = ulrl.phase_of(ulrl.Config(clip_norm=clip), jnp.asarray(0))
        kernels.append(both.run(both.variables, phase, {})["params"]["classifier"]["kernel"])
    assert not np.allclose(*kernels, rtol=1e-3)


@pytest.mark.parametrize("suspects", [[], [3], [1, 4]])
def test_relearning(both: Both, suspects: list[int]) -> None:
    mask = jnp.zeros(CLASSES, bool).at[jnp.asarray(suspects, int)].set(True)
    start = ulrl.reinitialise(both.variables, {HEAD: mask}, jax.random.key(1))
    before = both.model.classifier.weight.detach().clone()
    arrays = convert.to_torch(both.spec, jax.tree.map(np.asarray, start))
    both.model.load_state_dict(
        {
            **both.model.state_dict(),
            **{
                key: torch.from_numpy(np.array(value)) for key, value in arrays.items() if "classifier" in key
            },
        }
    )
    changed = torch_ulrl.row_changes(both.model.classifier.weight.detach(), before).nonzero().flatten()
    assert changed.tolist() == suspects

    torch_ulrl.relearn(
        both.model, both.model.classifier, before, suspects, both.torch_batches, rate=0.005, penalty=0.7
    )
    phase = ulrl.phase_of(ulrl.Config(learning_rate=0.005, penalty=0.7), jnp.asarray(20))
    both.assert_equal(both.run(start, phase, {HEAD: mask}))


def test_rates_follow_pytorchs_schedulers() -> None:
    optimizers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate) for rate in (0.01, 0.005)]
    drops = torch.optim.lr_scheduler.MultiStepLR(optimizers[0], [10, 20], 0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[1], 20)
    expected = []
    for scheduler, optimizer in ((drops, optimizers[0]), (cosine, optimizers[1])):
        for _ in range(20):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    found = [float(ulrl.phase_of(ulrl.Config(), jnp.asarray(now)).rate) for now in range(40)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)

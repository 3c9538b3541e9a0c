"""Max-pooling against PyTorch's, values and gradients, also where pixels tie."""

import jax
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxunlearn.models.layers import max_pool


@settings(max_examples=12)  # almost every example compiles anew
@given(
    side=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    window=st.sampled_from([(2, 2, 0), (3, 3, 0), (3, 2, 1), (2, 1, 0)]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_pytorch(
    side: tuple[int, int], window: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 3, (2, *side, 3)).astype(np.float32)  # few values: most windows have ties
    theirs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(theirs, *window)
    weights = rng.normal(size=pooled.shape).astype(np.float32)
    (pooled * torch.from_numpy(weights)).sum().backward()
    ours, pull = jax.vjp(lambda x: max_pool(x, *window), images)
    assert np.array_equal(ours.transpose(0, 3, 1, 2), pooled.detach().numpy())
    assert theirs.grad is not None
    (gradient,) = pull(weights.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(gradient.transpose(0, 3, 1, 2), theirs.grad.numpy(), atol=1e-6)

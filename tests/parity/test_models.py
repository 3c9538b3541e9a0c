"""Every twin computes what its PyTorch original computes: logits, gradients, running statistics."""

import copy
import dataclasses
import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from converters import convert
from experiments.torch_ibau import SmallVGG
from jaxunlearn._tree import named_leaves
from jaxunlearn.models import ModelSpec, small_vgg
from tests.torch_models import CifarResNet, PlainVGG, Resizing, WideResNet, calibrate, randomise
from tests.vision import models as tv

CLASSES = 7


def _vgg(stages: str, batch_norm: bool) -> torch.nn.Module:
    layers = tv.vgg.make_layers([int(s) if s != "M" else s for s in stages.split()], batch_norm=batch_norm)
    network = tv.VGG(layers, init_weights=False, dropout=0.0)
    width = [part for part in layers if isinstance(part, torch.nn.Conv2d)][-1].out_channels
    # torchvision's own first matrix has a hundred million entries.
    for index, (inputs, outputs) in {0: (49 * width, 24), 3: (24, 16), 6: (16, CLASSES)}.items():
        network.classifier[index] = torch.nn.Linear(inputs, outputs)
    return network


def _mobilenet_v3() -> torch.nn.Module:
    rows, last = tv.mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=0.25)
    return tv.MobileNetV3(rows, last, num_classes=CLASSES, dropout=0.0)


def _efficientnet() -> torch.nn.Module:
    rows, last = tv.efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.3, depth_mult=0.3)
    return tv.EfficientNet(
        rows, dropout=0.0, stochastic_depth_prob=0.0, last_channel=last, num_classes=CLASSES
    )


def _convnext() -> torch.nn.Module:
    row = tv.convnext.CNBlockConfig
    rows = [row(8, 16, 2), row(16, 24, 1), row(24, 32, 1), row(32, None, 2)]
    return tv.ConvNeXt(rows, stochastic_depth_prob=0.0, num_classes=CLASSES)


def _vit(side: int = 32) -> torch.nn.Module:
    return tv.VisionTransformer(side, 8, 2, 2, 128, 96, num_classes=CLASSES)


# Small members of every family; what is read off the shapes makes them different from the usual ones.
SMALL: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "small_vgg": (lambda: SmallVGG(CLASSES, side=32, widths=(4, 6, 8)), (32,)),
    "preact_resnet": (
        lambda: CifarResNet((2, 1), (4, 8), bottleneck=False, preact=True, classes=CLASSES),
        (32, 45),
    ),
    "preact_bottleneck": (
        lambda: CifarResNet((2, 1), (4, 8), bottleneck=True, preact=True, classes=CLASSES),
        (32, 45),
    ),
    "resnet_cifar": (
        lambda: CifarResNet((2, 1), (4, 8), bottleneck=False, preact=False, classes=CLASSES),
        (32, 45),
    ),
    "resnet": (lambda: tv.ResNet(tv.resnet.BasicBlock, [1, 2, 1, 1], num_classes=CLASSES), (32, 61)),
    "resnet_bottleneck": (
        lambda: tv.ResNet(
            tv.resnet.Bottleneck, [2, 1, 1, 1], num_classes=CLASSES, groups=2, width_per_group=32
        ),
        (64,),
    ),
    "wide_resnet": (lambda: WideResNet(2, 2, 4, CLASSES), (32, 45)),
    "vgg": (lambda: _vgg("4 M 6 8 M 8 M 8 M 8 M", batch_norm=False), (32, 64, 250)),
    "vgg_bn": (lambda: _vgg("4 M 6 8 M 8 M 8 M 8 M", batch_norm=True), (32, 77)),
    "vgg_cifar": (lambda: PlainVGG([[4], [6, 8], [8]], CLASSES), (32, 41)),
    "densenet": (lambda: tv.DenseNet(8, (2, 2, 2), 12, num_classes=CLASSES), (32, 75)),
    "mobilenet_v3": (_mobilenet_v3, (32, 75)),
    "efficientnet": (_efficientnet, (32, 75)),
    "convnext": (_convnext, (32, 75)),
    "vit": (_vit, (32,)),
    "vit_resizing": (lambda: Resizing(_vit(), 32), (20, 24)),
}


# The networks as they are used, at the sizes that they are used at.
def answering(network: Any) -> torch.nn.Module:
    """The network with a head that is not zero, as torchvision makes it."""
    torch.nn.init.normal_(network.heads.head.weight, std=0.05)
    return network


FULL: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    **{
        name.format(depth): (
            functools.partial(
                CifarResNet, blocks, (64, 128, 256, 512), bottleneck=depth == 50, preact="preact" in name
            ),
            (32, 64),
        )
        for name in ("preact_resnet{}", "resnet{}_cifar")
        for depth, blocks in ((18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)), (50, (3, 4, 6, 3)))
    },
    **{name: (getattr(tv, name), (32, 64, 224)) for name in ("resnet18", "resnet34", "resnet50")},
    **{
        f"vgg{depth}{suffix}": (getattr(tv, f"vgg{depth}{suffix}"), (32, 64, 224))
        for depth in (11, 13, 16, 19)
        for suffix in ("", "_bn")
    },
    "wide_resnet16_1": (lambda: WideResNet(2, 1), (32, 64)),
    "wide_resnet28_10": (WideResNet, (32, 64)),
    **{
        name: (getattr(tv, name), (32, 64, 224))
        for name in (
            "densenet121",
            "densenet161",
            "mobilenet_v3_large",
            "efficientnet_b0",
            "efficientnet_b3",
            "convnext_tiny",
        )
    },
    "small_vit": (
        lambda: answering(tv.VisionTransformer(32, 8, 4, 3, 192, 384, num_classes=1000)),
        (32,),
    ),
    "vit_b_16": (lambda: answering(tv.vit_b_16()), (224,)),
    "vit_b_16_resizing": (lambda: Resizing(answering(tv.vit_b_16()), 224), (32, 64)),
}


@pytest.fixture(autouse=True)
def _forget(request: pytest.FixtureRequest) -> Iterator[None]:
    """A network of full size with its programs takes gigabytes."""
    yield
    if request.node.get_closest_marker("slow"):
        jax.clear_caches()
        gc.collect()


def converted(network: torch.nn.Module) -> tuple[ModelSpec, Any]:
    arrays = {key: value.numpy().copy() for key, value in network.state_dict().items()}
    return convert.from_torch(arrays)


def still(module: Any) -> Any:
    """The module with nothing random in training."""
    rates = {
        field.name: tuple(0.0 for _ in rate)
        if isinstance(rate := getattr(module, field.name), tuple)
        else 0.0
        for field in dataclasses.fields(module)
        if field.name in ("dropout", "drop")
    }
    return dataclasses.replace(module, **rates)


def batch(side: int, count: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.random((count, side, side, 3)).astype(np.float32)
    return images, rng.integers(0, CLASSES, count)


def to_nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def gradient_of(tensor: torch.Tensor) -> np.ndarray:
    """What backward() left at it."""
    assert tensor.grad is not None
    return tensor.grad.numpy()


def distance(true: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / max(float(np.linalg.norm(true)), 1e-12))


class Measured(NamedTuple):
    """The same quantities by PyTorch and by the twin.

    Attributes:
      true: by PyTorch.
      found: by the twin.
    """

    true: list[np.ndarray]
    found: list[np.ndarray]


Prepare = Callable[[torch.nn.Module, Any], Callable[[int], Measured]]
"""Takes a network and its precision; what it returns measures on arrays drawn with a seed."""

Distance = Callable[[np.ndarray, np.ndarray], float]

DRAWS = 5


def check(prepare: Prepare, network: torch.nn.Module, tolerance: float, distance: Distance) -> Measured:
    """Compares in single precision on one of a few draws and, if the first one differs, in double precision.

    Rounding bends some quantities: where it turns a ReLU on, gradients jump by 1e-3, in either program, on some
    images and not on others; and of ResNet-50 on pictures of 32 pixels all logits of both are 1e-4 off. So a draw may
    differ, but then double precision must agree, and if all differ PyTorch must be as far from the truth.
    """

    def apart(first: list[np.ndarray], second: list[np.ndarray]) -> float:
        return max(distance(*pair) for pair in zip(first, second, strict=True))

    measure = prepare(network, np.float32)
    singles = []
    for seed in range(DRAWS):
        single = measure(seed)
        if apart(*single) <= tolerance:
            return single
        singles.append(single)
        if seed == 0:
            with jax.enable_x64(True):
                exactly = prepare(copy.deepcopy(network).double(), np.float64)
                assert apart(*exactly(seed)) < 1e-7
    with jax.enable_x64(True):
        truths = [exactly(seed).true for seed in range(DRAWS)]
    theirs, ours = (
        [apart(truth, getattr(single, name)) for truth, single in zip(truths, singles, strict=True)]
        for name in Measured._fields
    )
    assert min(ours) <= 3 * max(theirs), f"off by {ours}, PyTorch by {theirs}"
    return singles[0]


def check_logits(network: torch.nn.Module, side: int, count: int) -> None:
    def prepare(network: torch.nn.Module, dtype: Any) -> Callable[[int], Measured]:
        spec, variables = converted(network.eval())
        apply = jax.jit(lambda v, x: spec.apply(v, x, train=False)[0])

        def measure(seed: int) -> Measured:
            images = batch(side, count, seed)[0].astype(dtype)
            with torch.no_grad():
                true = network(to_nchw(images)).numpy()
            return Measured([true], [np.asarray(apply(variables, images))])

        return measure

    (true,), (found,) = check(prepare, network, 1e-4, lambda a, b: float(np.abs(a - b).max()))
    assert float(np.ptp(true)) > 0.01  # otherwise agreement says nothing
    assert np.array_equal(found.argmax(1), true.argmax(1))


def check_gradients(network: torch.nn.Module, side: int, count: int) -> None:
    def prepare(network: torch.nn.Module, dtype: Any) -> Callable[[int], Measured]:
        spec, variables = converted(network.eval())
        keys = {convert.canonical(spec, key): key for key, _ in network.named_parameters()}

        def loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
            logits = spec.apply({**variables, "params": params}, x, train=False)[0]
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(count), labels])

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))

        def measure(seed: int) -> Measured:
            images, labels = batch(side, count, seed)
            pixels = to_nchw(images.astype(dtype)).requires_grad_()
            network.zero_grad()
            torch.nn.functional.cross_entropy(network(pixels), torch.from_numpy(labels)).backward()
            true = {key: gradient_of(p).copy() for key, p in network.named_parameters()}
            found, found_pixels = gradient(variables["params"], images.astype(dtype), labels)
            spelled = convert.to_torch(spec, {**variables, "params": found})
            back = {convert.canonical(spec, key): array for key, array in spelled.items()}
            theirs, ours = (
                np.concatenate([grads[key].ravel() for key in grads])
                for grads in ({key: true[keys[key]] for key in keys}, {key: back[key] for key in keys})
            )
            shown = np.asarray(found_pixels).transpose(0, 3, 1, 2)
            return Measured([gradient_of(pixels), theirs], [shown, ours])

        return measure

    check(prepare, network, 1e-4, distance)


def check_statistics(network: torch.nn.Module, side: int, count: int) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout | tv.efficientnet.StochasticDepth):
            module.p = 0.0

    def prepare(network: torch.nn.Module, dtype: Any) -> Callable[[int], Measured]:
        spec, start = converted(network)
        spec = dataclasses.replace(spec, module=still(spec.module))
        step = jax.jit(lambda v, x: {**v, **pick(spec.apply(v, x, train=True)[1])})

        def measure(seed: int) -> Measured:
            trained, variables = copy.deepcopy(network).train(), start
            for update in range(3):
                images = batch(side, count, 3 * seed + update)[0].astype(dtype)
                with torch.no_grad():
                    trained(to_nchw(images))
                variables = step(variables, images)
            true = {key: value.numpy() for key, value in trained.state_dict().items()}
            back = convert.to_torch(spec, variables)
            statistics = [key for key in true if key.endswith(("running_mean", "running_var"))]
            found = [back[convert.canonical(spec, key)] for key in statistics]
            return Measured([np.zeros(1), *(true[key] for key in statistics)], [np.zeros(1), *found])

        return measure

    check(prepare, network, 1e-5, lambda a, b: float((np.abs(b - a) / (1 + np.abs(a))).max()))


def pick(aux: dict[str, Any]) -> dict[str, Any]:
    return {"batch_stats": aux["batch_stats"]} if "batch_stats" in aux else {}


def check_round_trip(network: torch.nn.Module) -> None:
    state_dict = network.state_dict()
    for number, (key, value) in enumerate(state_dict.items()):
        if key.endswith("num_batches_tracked"):
            value.fill_(number)
    arrays = {key: value.numpy().copy() for key, value in state_dict.items()}
    for dtype in (np.float32, np.float16, np.float64):
        cast = {k: a.astype(dtype) if a.dtype == np.float32 else a for k, a in arrays.items()}
        spec, variables = convert.from_torch(cast)
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)
        back = convert.to_torch(spec, variables, like=cast)
        assert list(back) == list(cast)
        for key, array in cast.items():
            assert back[key].dtype == array.dtype
            np.testing.assert_array_equal(back[key], array)


LONG_TO_COMPILE = ("convnext", "mobilenet_v3", "efficientnet")
"""Networks whose gradients are compared with the slow tests only; their logits and statistics always are."""


@pytest.mark.parametrize(("name", "side"), [(n, side) for n, (_, sides) in SMALL.items() for side in sides])
def test_logits(name: str, side: int) -> None:
    torch.manual_seed(0)
    check_logits(randomise(SMALL[name][0](), 1), side, count=4)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in LONG_TO_COMPILE else []) for name in SMALL],
)
def test_gradients(name: str) -> None:
    torch.manual_seed(0)
    check_gradients(randomise(SMALL[name][0](), 2), SMALL[name][1][0], count=4)


@pytest.mark.parametrize("name", SMALL)
def test_running_statistics(name: str) -> None:
    torch.manual_seed(0)
    check_statistics(randomise(SMALL[name][0](), 3), max(SMALL[name][1][0], 32), count=8)


@pytest.mark.parametrize("name", SMALL)
def test_round_trip(name: str) -> None:
    torch.manual_seed(0)
    check_round_trip(randomise(SMALL[name][0](), 4))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [(n, side) for n, (_, sides) in FULL.items() for side in sides])
def test_full_size_logits(name: str, side: int) -> None:
    torch.manual_seed(0)
    check_logits(calibrate(FULL[name][0](), side), side, count=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_size_gradients(name: str) -> None:
    torch.manual_seed(0)
    side = max(FULL[name][1][:2])
    check_gradients(calibrate(FULL[name][0](), side), side, count=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_size_statistics(name: str) -> None:
    torch.manual_seed(0)
    check_statistics(FULL[name][0](), max(FULL[name][1][:2]), count=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_size_names_and_round_trip(name: str) -> None:
    torch.manual_seed(0)
    network = FULL[name][0]()
    assert converted(network)[0].name == name.removesuffix("_resizing")
    check_round_trip(network)


def test_other_names_of_the_same_tensors() -> None:
    """timm's vision transformer and old torchvision files, by renaming what torchvision writes now."""
    torch.manual_seed(0)
    arrays = {key: value.numpy() for key, value in randomise(_vit(), 0).state_dict().items()}
    timm = {
        key.replace("class_token", "cls_token")
        .replace("encoder.pos_embedding", "pos_embed")
        .replace("conv_proj", "patch_embed.proj")
        .replace("encoder.layers.encoder_layer_", "blocks.")
        .replace("ln_1", "norm1")
        .replace("ln_2", "norm2")
        .replace("self_attention.in_proj_", "attn.qkv.")
        .replace("self_attention.out_proj", "attn.proj")
        .replace("mlp.0", "mlp.fc1")
        .replace("mlp.3", "mlp.fc2")
        .replace("encoder.ln.", "norm.")
        .replace("heads.head", "head"): array
        for key, array in arrays.items()
    }
    old = {
        key.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): a for key, a in arrays.items()
    }
    expected = convert.from_torch(arrays)
    for renamed in (timm, old):
        assert len(set(renamed) & set(arrays)) < len(arrays)
        spec, variables = convert.from_torch(renamed)
        assert spec == expected.spec
        for name, leaf in named_leaves(variables).items():
            np.testing.assert_array_equal(leaf, named_leaves(expected.variables)[name])
        assert list(convert.to_torch(spec, variables, like=renamed)) == list(renamed)


def test_the_densenet_of_old_files() -> None:
    network = randomise(tv.DenseNet(8, (2, 2), 12, num_classes=CLASSES), 0)
    arrays = {key: value.numpy() for key, value in network.state_dict().items()}
    old = {
        key.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2")
        if "denselayer" in key
        else key: array
        for key, array in arrays.items()
        if not key.endswith("num_batches_tracked")
    }
    spec, variables = convert.from_torch(old)
    back = convert.to_torch(spec, variables, like=old)
    for key, array in old.items():
        np.testing.assert_array_equal(back[key], array)


@pytest.mark.usefixtures("x64")
def test_fresh_variables_are_single_in_double_precision_too() -> None:
    spec = small_vgg(10, (8, 8, 1), (4, 4, 4))
    for leaf in jax.tree.leaves((spec.init(jax.random.key(0)), spec.shapes())):
        assert leaf.dtype == jnp.float32

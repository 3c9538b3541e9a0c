"""The state of a run on disk, for going on after an interruption."""

import io
import json
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn._check import InputError
from jaxunlearn._files import write_whole
from jaxunlearn._tree import named_leaves

State = TypeVar("State")

STATE_FILE = "state.npz"

_MISSING = object()
_NOTES = "__notes__"


def save_state(path: Path, state: Any, notes: dict[str, Any]) -> None:
    """Writes a pytree of arrays and JSON-able notes; the file appears whole or not at all."""
    arrays = {name: _as_numpy(leaf) for name, leaf in named_leaves(state).items()}
    arrays[_NOTES] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())


def load_notes(path: Path) -> dict[str, Any]:
    """The notes of a saved state.

    Raises:
      InputError: if the file is damaged.
    """
    return json.loads(_read(path)[_NOTES].tobytes())


def load_state(path: Path, like: State) -> State:
    """The saved leaves in the structure of ``like``.

    Raises:
      InputError: if the file is damaged or its leaves are not those of ``like``.
    """
    arrays = _read(path)
    expected = named_leaves(like)
    shapes = {name: (_as_numpy(leaf).shape, _as_numpy(leaf).dtype) for name, leaf in expected.items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items() if name != _NOTES}
    if found != shapes:
        wrong = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
        raise InputError(
            f"{path} does not hold the state of this run ({wrong[0]} differs); remove it, or start anew with --force."
        )
    leaves = [_like(arrays[name], leaf) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def damaged(path: Path) -> InputError:
    """What to say of a state that cannot be gone on with."""
    return InputError(f"{path} is damaged; remove it, or start anew with --force.")


def check_same(now: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Refuses to go on with a run that was another one.

    Args:
      now: what this run is, by name; values are for JSON, some of them mappings.
      earlier: what the interrupted one was.

    Raises:
      InputError: if they differ; it names the first difference.
    """
    for name, value in now.items():
        if value != earlier.get(name):
            old, new = earlier.get(name), value
            if isinstance(value, dict) and isinstance(old, dict):
                part = next(
                    key for key in [*value, *old] if value.get(key, _MISSING) != old.get(key, _MISSING)
                )
                name, old, new = f"{name} ({part})", old.get(part), value.get(part)
            raise InputError(
                f"The interrupted run had {name} {old!r} and this one has {new!r}; resume with the same, or start "
                "anew with --force or in another folder."
            )


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not isinstance(json.loads(arrays[_NOTES].tobytes()), dict):
            raise ValueError("the notes are none")
        return arrays
    except Exception:  # a damaged archive raises zipfile, zlib, NumPy and JSON errors alike
        raise damaged(path) from None


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(array: np.ndarray, leaf: Any) -> jax.Array | np.generic:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return array.dtype.type(array) if isinstance(leaf, np.generic) else jnp.asarray(array)

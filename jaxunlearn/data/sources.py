"""Sources of labelled images, named by a short text: ``digits``, ``folder:photos``, ``npz:clean.npz[:500]``.

Everything read here is untrusted: arrays are loaded without pickle, pictures within a size limit, and a
bad file is named in one sentence.
"""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxunlearn._check import InputError

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")
_LARGEST_PICTURE_PIXELS = 2**26


@dataclass(frozen=True)
class LabelledImages:
    """Images with their true classes.

    Attributes:
      images: float32 pixels in [0, 1], NHWC.
      labels: int32, one per image.
      origin: where they came from, for messages.
    """

    images: Float[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    origin: str

    def take(self, rows: slice | np.ndarray) -> "LabelledImages":
        """Some of the images."""
        return LabelledImages(self.images[rows], self.labels[rows], self.origin)


def load(spec: str) -> LabelledImages:
    """Loads the images that a text names.

    Args:
      spec: ``digits`` (the 1 797 handwritten digits that scikit-learn ships, 8x8x1), ``folder:DIR`` (one
        sub-folder per class; numbers are class numbers, other names count in alphabetical order),
        ``npz:FILE`` (arrays ``x``, uint8 NHWC, and ``y``), ``parquet:FILE`` (Hugging Face's image layout)
        or ``tfds:NAME[:SPLIT]`` (a prepared TensorFlow data set). Each may end in a slice such as
        ``[:5000]``; the files of a folder are in a fixed mixed order, so that a slice holds all classes.

    Raises:
      InputError: if the text or what it names cannot be used.

    Example:
      >>> load("digits[:100]").images.shape
      (100, 8, 8, 1)
    """
    match = re.fullmatch(r"(?P<kind>[a-z]+)(?::(?P<where>.*?))?(?P<slice>\[-?\d*:-?\d*\])?", spec, re.DOTALL)
    kind = match["kind"] if match else ""
    if match is None or kind not in _SOURCES or (kind == "digits") != (match["where"] is None):
        raise InputError(
            f"{spec!r} names no images; expected digits, folder:DIR, npz:FILE, parquet:FILE or tfds:NAME[:SPLIT], "
            "each with an optional slice such as [:5000]."
        )
    rows = slice(None)
    if match["slice"]:
        start, stop = (int(bound) if bound else None for bound in match["slice"][1:-1].split(":"))
        rows = slice(start, stop)
    images, labels = _SOURCES[kind](match["where"] or "", rows)
    if len(labels) == 0:
        raise InputError(f"{spec} holds no images; check the slice and the source.")
    return LabelledImages(images, labels.astype(np.int32), spec)


def read_image(path: Path) -> Float[np.ndarray, "h w c"]:
    """Reads one picture (or a ``.npy`` array) as float32 pixels in [0, 1], with 1 or 3 channels.

    Raises:
      InputError: if it is missing or damaged.
    """
    if path.suffix == ".npy":
        array = _read_arrays(path)
        if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
            raise InputError(f"{path} is no picture; expected an array of shape (height, width[, channels]).")
        array = array[..., None] if array.ndim == 2 else array
        return array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if not path.is_file():
        raise InputError(f"There is no picture {path}; check the path.")
    return _to_float([_decode(path.read_bytes(), str(path))])[0]


def _digits(where: str, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images[rows, ..., None] / 16).astype(np.float32), digits.target[rows]


def _folder(where: str, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    folder = Path(where)
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}; give a folder with one sub-folder of pictures per class."
        )
    classes = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(classes) < 2:
        found = f"only the sub-folder {classes[0]!r}" if classes else "no sub-folder"
        raise InputError(
            f"{folder} holds {found}; expected one sub-folder of pictures for each of several classes."
        )
    number = {name: int(name) if all(map(str.isdecimal, classes)) else i for i, name in enumerate(classes)}
    files = [
        (path, number[name])
        for name in classes
        for path in (folder / name).iterdir()
        if path.suffix.lower() in PICTURE_ENDINGS and path.is_file()
    ]
    files.sort(key=lambda entry: hashlib.sha256(entry[0].relative_to(folder).as_posix().encode()).digest())
    files = files[rows]
    pictures = [_decode(path.read_bytes(), str(path)) for path, _ in files]
    return _to_float(pictures, [str(path) for path, _ in files]), np.array(
        [label for _, label in files], np.int32
    )


def _npz(where: str, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    arrays = _read_arrays(Path(where))
    if isinstance(arrays, np.ndarray) or not {"x", "y"} <= set(arrays):
        held = ", ".join(arrays) if isinstance(arrays, dict) else "a single array"
        raise InputError(
            f"{where} holds {held or 'nothing'}; expected the arrays x (uint8 NHWC) and y (labels)."
        )
    images, labels = arrays["x"], arrays["y"]
    images = images[..., None] if images.ndim == 3 else images
    whole = np.issubdtype(labels.dtype, np.integer)
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1] or not whole:
        raise InputError(
            f"{where}: x is {images.dtype} of shape {images.shape}, y is {labels.dtype} of shape {labels.shape}; "
            "expected x uint8 of shape (images, height, width, channels) and one integer in y for each image."
        )
    return images[rows].astype(np.float32) / 255, labels[rows]


def _parquet(where: str, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(where)
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a Parquet file in Hugging Face's image layout.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0][:100]}).") from None
    pictures = [
        name
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
        if pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]
    ]
    labels = [name for name in ("label", "labels", "fine_label") if name in table.schema.names]
    if not pictures or not labels or not pa.types.is_integer(table.schema.field(labels[0]).type):
        raise InputError(
            f"{path} has the columns {', '.join(table.schema.names)}; expected an image column (a struct of bytes "
            "and path) and an integer column label."
        )
    start, stop, _ = rows.indices(table.num_rows)
    table = table.slice(start, max(0, stop - start))
    names = [f"{path} row {start + row}" for row in range(table.num_rows)]
    encoded = table.column(pictures[0]).to_pylist()
    decoded = [
        _decode((entry or {}).get("bytes") or b"", name) for entry, name in zip(encoded, names, strict=True)
    ]
    return _to_float(decoded, names), np.asarray(table.column(labels[0]).to_pylist(), np.int32)


def _tfds(where: str, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    name, _, split = where.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, about nothing the user can change
        import tensorflow_datasets as tfds

        try:
            folder = os.environ.get("TFDS_DATA_DIR")  # its own default is fixed at import
            source = tfds.data_source(name, split=split or "train", download=False, data_dir=folder)
        except Exception as error:  # it raises anything from AssertionError to its own kinds
            reason = str(error).strip().splitlines()
            raise InputError(
                f"tfds:{where} cannot be opened ({reason[0][:160] if reason else type(error).__name__}); prepare the "
                "data set in array_record format first, and set TFDS_DATA_DIR if it does not lie in the default folder."
            ) from None
        picked = [source[row] for row in range(*rows.indices(len(source)))]
    if picked and not {"image", "label"} <= set(picked[0]):
        raise InputError(f"tfds:{where} has the features {', '.join(picked[0])}; expected image and label.")
    pictures = [np.asarray(entry["image"], np.uint8) for entry in picked]
    labels = np.array([int(entry["label"]) for entry in picked], np.int32)
    return _to_float(pictures, [f"tfds:{where} row {row}" for row in range(len(pictures))]), labels


_SOURCES: dict[str, Callable[[str, slice], tuple[np.ndarray, np.ndarray]]] = {
    "digits": _digits,
    "folder": _folder,
    "npz": _npz,
    "parquet": _parquet,
    "tfds": _tfds,
}


def _read_arrays(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"There is no file {path}; check the path.")
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # damaged archives raise zipfile, zlib, struct and NumPy errors alike
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path} cannot be read as NumPy arrays without pickle ({reason}).") from None


def _decode(encoded: bytes, name: str) -> np.ndarray:
    """uint8 pixels (height, width, 1 or 3); colour palettes and transparency become plain colours."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded)) as picture:
                if picture.width * picture.height > _LARGEST_PICTURE_PIXELS:
                    raise InputError(
                        f"The picture {name} has {picture.width}x{picture.height} pixels; too many."
                    )
                grey = picture.mode in ("1", "L")
                pixels = np.asarray(picture.convert("L" if grey else "RGB"))
                return pixels[..., None] if grey else pixels
    except InputError:
        raise
    except Exception as error:  # decoders raise anything on damaged pictures
        reason = "no picture format" if "cannot identify" in str(error) else str(error).splitlines()[0][:100]
        raise InputError(f"The picture {name} is damaged ({reason}); repair or remove it.") from None


def _to_float(pictures: list[np.ndarray], names: list[str] | None = None) -> np.ndarray:
    """One float32 array of pictures that must agree in size; grey ones turn to colour among colour ones."""
    if not pictures:
        return np.zeros((0, 0, 0, 0), np.float32)
    channels = max(picture.shape[2] for picture in pictures)
    for index, picture in enumerate(pictures):
        if picture.shape[:2] != pictures[0].shape[:2]:
            first, other = (names[0], names[index]) if names else ("the first", f"number {index}")
            raise InputError(
                f"The pictures differ in size: {first} has {_size(pictures[0])} pixels and {other} has "
                f"{_size(picture)}; bring them to the size that the model was trained on."
            )
    stacked = np.stack([np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures])
    return stacked.astype(np.float32) / 255


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"

"""Labelled images, in memory or decoded where they are looked at."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

_SMALL_BYTES = 2**28
_CHUNK = 256


class StoredImages:
    """Images that stay encoded, on disk or as bytes in memory; float32 pixels in [0, 1] where they are indexed.

    Whoever only asks for the shape and takes some of the images at a time can use them as an array.

    Attributes:
      shape: (images, height, width, channels).
      dtype: float32, of what indexing gives.
    """

    def __init__(
        self,
        fetch: Callable[[Int[np.ndarray, " n"]], UInt8[np.ndarray, "n h w c"]],
        rows: Int[np.ndarray, " n"],
        size: tuple[int, ...],
    ) -> None:
        """Takes the parts.

        Args:
          fetch: gives the pixels of some rows of the source.
          rows: of the source, those that are these images.
          size: (height, width, channels) of each.
        """
        self._fetch, self._rows = fetch, rows
        self.shape: tuple[int, ...] = (len(rows), *size)
        self.dtype: np.dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Pixels of a slice, of an array of numbers, or of one number."""
        picked = self._rows[rows if isinstance(rows, slice) else np.asarray(rows)]
        pixels = self._fetch(np.atleast_1d(picked)) if np.size(picked) else np.zeros((0, *self.shape[1:]))
        floats = pixels.astype(np.float32) / 255
        return floats[0] if np.ndim(picked) == 0 else floats

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them in memory."""
        del copy  # they are always new
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, rows: Any) -> "StoredImages":
        """Some of the images, still stored."""
        return StoredImages(self._fetch, self._rows[rows], self.shape[1:])

    def settled(self) -> "np.ndarray | StoredImages":
        """An array if they are few, and themselves if they would take much memory."""
        return np.asarray(self) if np.prod(self.shape) * self.dtype.itemsize <= _SMALL_BYTES else self


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images with their true classes.

    Attributes:
      images: float32 pixels in [0, 1], NHWC: an array, or ``StoredImages`` where an array would be large.
      labels: int32, one per image.
      origin: where they came from, for messages.
      rows: the number of each image in its source.
      name: of an image in messages, by its number in the source.
      notices: what the user should know about how they were read.
      poisoned: marks the images that an attack has changed, in a collection that says so.
    """

    images: Float[np.ndarray | StoredImages, "n h w c"]
    labels: Int[np.ndarray, " n"]
    origin: str
    rows: Int[np.ndarray, " n"]
    name: Callable[[int], str]
    notices: tuple[str, ...] = ()
    poisoned: Bool[np.ndarray, " n"] | None = None

    def take(self, rows: slice | np.ndarray) -> "LabelledImages":
        """Some of the images."""
        images = self.images.take(rows) if isinstance(self.images, StoredImages) else self.images[rows]
        poisoned = None if self.poisoned is None else self.poisoned[rows]
        return dataclasses.replace(
            self, images=images, labels=self.labels[rows], rows=self.rows[rows], poisoned=poisoned
        )

    def name_of(self, index: int) -> str:
        """What to call one of the images in a message."""
        return self.name(int(self.rows[index]))

    @functools.cached_property
    def fingerprints(self) -> list[str]:
        """A hash of shape and pixels, of 8 bits each, for every image; reads each of them once."""
        shape = repr(self.images.shape[1:]).encode()
        return [
            hashlib.blake2b(
                np.rint(image * 255).astype(np.uint8, order="C"), key=shape, digest_size=16
            ).hexdigest()
            for start in range(0, len(self.labels), _CHUNK)
            for image in np.asarray(self.images[start : start + _CHUNK])
        ]

    @property
    def sha256(self) -> str:
        """Hash of the fingerprints of all images and of their labels, in hexadecimal."""
        digest = hashlib.sha256("".join(self.fingerprints).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

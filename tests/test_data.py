"""Sources of images: the same images by every road."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxunlearn._check import InputError
from jaxunlearn.data import hold_out, load, read_image


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8), np.arange(12) % 3


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, lossless=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, pictures: Any) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("places")
    images, labels = pictures
    np.savez(folder / "a.npz", x=images, y=labels)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "tree" / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / "tree" / str(label) / f"{number}.png").write_bytes(encoded(image))
    rows = [
        {"bytes": encoded(image, kind), "path": None}
        for image, kind in zip(images, ["PNG", "WEBP", "BMP"] * 4, strict=True)
    ]
    pq.write_table(pa.table({"image": rows, "label": labels}), folder / "a.parquet")
    return {
        "npz": f"npz:{folder}/a.npz",
        "folder": f"folder:{folder}/tree",
        "parquet": f"parquet:{folder}/a.parquet",
    }


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_every_road_gives_the_same_images(kind: str, places: dict[str, str], pictures: Any) -> None:
    loaded = load(places[kind])
    assert (loaded.images.dtype, loaded.labels.dtype) == (np.float32, np.int32)
    expected = {image.tobytes(): label for image, label in zip(*pictures, strict=True)}
    found = {
        np.round(image * 255).astype(np.uint8).tobytes(): label
        for image, label in zip(loaded.images, loaded.labels, strict=True)
    }
    assert found == expected


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_slices_take_the_same_rows_as_python(kind: str, places: dict[str, str]) -> None:
    whole = load(places[kind])
    for text, rows in (("[:5]", slice(5)), ("[5:]", slice(5, None)), ("[2:-3]", slice(2, -3))):
        part = load(places[kind] + text)
        np.testing.assert_array_equal(part.images, whole.images[rows])
        np.testing.assert_array_equal(part.labels, whole.labels[rows])


def test_a_slice_of_a_folder_mixes_the_classes(places: dict[str, str]) -> None:
    assert len(set(load(places["folder"] + "[:6]").labels.tolist())) == 3


def test_named_classes_count_alphabetically(tmp_path: Path) -> None:
    for name, value in (("zebra", 9), ("ant", 3)):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), value).save(tmp_path / name / "a.png")
    loaded = load(f"folder:{tmp_path}")
    assert {
        int(label): round(float(image.max()) * 255)
        for image, label in zip(loaded.images, loaded.labels, strict=True)
    } == {0: 3, 1: 9}
    assert loaded.images.shape == (2, 4, 4, 1)


def test_prepared_tfds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Any) -> None:
    import tensorflow_datasets as tfds

    class ToySet(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for number, (image, label) in enumerate(zip(*pictures, strict=True)):
                yield number, {"image": io.BytesIO(encoded(image)), "label": int(label)}

    ToySet(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    loaded = load("tfds:toy_set:train")
    assert loaded.images.shape == (12, 8, 8, 3)
    assert sorted(loaded.labels.tolist()) == sorted(pictures[1].tolist())
    assert len(load("tfds:toy_set[:4]").labels) == 4


def test_single_pictures(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "float.npy", pixels / np.float32(255))
    for name in ("a.png", "a.npy", "float.npy"):
        np.testing.assert_allclose(read_image(tmp_path / name) * 255, pixels, atol=1e-4)
    np.save(tmp_path / "flat.npy", np.zeros(5))
    with pytest.raises(InputError, match="is no picture"):
        read_image(tmp_path / "flat.npy")


def test_huge_pictures_are_refused(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (2**16).to_bytes(4, "big") * 2
    chunk = header + b"\x08\x02\x00\x00\x00" + b"\x00" * 4
    (tmp_path / "bomb.png").write_bytes(chunk)
    with pytest.raises(InputError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")


def test_held_out_images_are_disjoint_and_complete() -> None:
    digits = load("digits[:100]")
    clean, test = hold_out(digits, share=0.2, most=15, seed=3)
    assert (len(clean.labels), len(test.labels)) == (85, 15)
    both = np.concatenate([clean.images, test.images]).reshape(100, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.images.reshape(100, -1)))

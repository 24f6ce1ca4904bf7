"""On a zip file in the layout of the official one, with images of our own."""

import io
import zipfile

import keras
import numpy as np
import pytest

from snip_tf import datasets
from snip_tf.experiments.datasets import tiny_imagenet

pytest.importorskip("tensorflow_datasets")

CLASSES = ["n03", "n01", "n02"]
TRAINING, VALIDATION = 4, 2  # images of each class
ZIP = "downloads/manual/tiny-imagenet-200.zip"


def jpeg(value, mode="rgb"):
    """An image of one color, which JPEG hardly changes."""
    pixels = np.full((64, 64, 3 if mode == "rgb" else 1), value, np.uint8)
    buffer = io.BytesIO()
    keras.utils.save_img(buffer, pixels, file_format="jpeg", scale=False)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """With the zip file where it is looked for; the color of an image is its class."""
    path = tmp_path / ZIP
    path.parent.mkdir(parents=True)
    annotations = []
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(CLASSES) + "\n")
        for name in CLASSES:
            color = 50 * int(name[1:])
            train = f"tiny-imagenet-200/train/{name}"
            archive.writestr(f"{train}/{name}_boxes.txt", "")
            for number in range(TRAINING):
                image = jpeg(color, "gray" if number == 0 else "rgb")
                archive.writestr(f"{train}/images/{name}_{number}.JPEG", image)
            for _ in range(VALIDATION):
                file = f"val_{len(annotations)}.JPEG"
                archive.writestr(f"tiny-imagenet-200/val/images/{file}", jpeg(color))
                annotations.append(f"{file}\t{name}\t0\t0\t63\t63\n")
        archive.writestr("tiny-imagenet-200/test/images/test_0.JPEG", jpeg(0))
        table = "".join(annotations)
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", table)
    return tmp_path


def prepared(folder):
    return list((folder / "tiny_imagenet_zip").rglob("*.tfrecord*"))


@pytest.mark.parametrize(
    ("split", "count"), [("train", TRAINING), ("test", VALIDATION)]
)
def test_reads_the_official_layout(folder, split, count):
    images, labels = tiny_imagenet.load(str(folder))[split]
    assert images.shape == (3 * count, 64, 64, 3)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert np.bincount(labels).tolist() == [count] * 3
    # The first class in alphabetical order is number 0.
    np.testing.assert_allclose(images[:, 32, 32, 0] * 255, 50 * (labels + 1), atol=1)


def test_is_loaded_by_name_and_prepared_once(folder):
    data = datasets.load("tiny_imagenet", str(folder))
    assert (data.input_shape, data.classes) == ((64, 64, 3), 3)
    (folder / ZIP).unlink()
    again = datasets.load("tiny_imagenet", str(folder))
    np.testing.assert_array_equal(again.train[0], data.train[0])


def test_says_which_file_is_missing_and_where_to_get_it(tmp_path):
    with pytest.raises(OSError, match="cs231n") as caught:
        tiny_imagenet.load(str(tmp_path))
    assert str((tmp_path / ZIP).parent) in str(caught.value)
    assert (tmp_path / ZIP).name in str(caught.value)
    assert not prepared(tmp_path)


def cut(content):
    return content[: len(content) // 2]


def changed_inside(content):
    """One byte of an image is another: only its sum tells."""
    place = content.index(b"JPEG", 0) + 600
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def no_zip_file(content):
    return b"<html>404 Not Found</html>"


@pytest.mark.parametrize("damage", [cut, changed_inside, no_zip_file])
def test_a_damaged_file_leaves_nothing_behind(folder, damage):
    path = folder / ZIP
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(OSError, match=r"tiny-imagenet-200\.zip"):
        tiny_imagenet.load(str(folder))
    assert not prepared(folder)
    path.write_bytes(whole)
    assert len(tiny_imagenet.load(str(folder))["test"][0]) == 3 * VALIDATION

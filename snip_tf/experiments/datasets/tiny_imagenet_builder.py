"""Prepares Tiny-ImageNet for tensorflow-datasets."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

_FILE = "tiny-imagenet-200.zip"
_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_FOLDER = "tiny-imagenet-200"


class TinyImagenetZip(tfds.core.GeneratorBasedBuilder):
    """Tiny-ImageNet: 200 classes of ImageNet at 64 x 64 pixels.

    Reference: Le and Yang, "Tiny ImageNet visual recognition challenge", 2015.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Download {_URL} and put it into that folder under its name, {_FILE}."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(64, 64, 3), encoding_format="jpeg"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=200),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        path = os.fspath(dl_manager.manual_dir / _FILE)
        return {
            "train": self._generate_examples(path, "train"),
            "validation": self._generate_examples(path, "val"),
        }

    def _generate_examples(self, path: str, part: str) -> Iterator[tuple[str, Any]]:
        with zipfile.ZipFile(path) as archive:
            classes = archive.read(f"{_FOLDER}/wnids.txt").decode().split()
            numbers = {name: number for number, name in enumerate(sorted(classes))}
            labels = _validation_labels(archive) if part == "val" else {}
            for name in archive.namelist():
                if not name.startswith(f"{_FOLDER}/{part}/") or name[-5:] != ".JPEG":
                    continue
                file = name.rpartition("/")[2]
                label = labels[file] if part == "val" else file.partition("_")[0]
                # The checksums of the archive are verified as it is read.
                with archive.open(name) as image:
                    yield file, {"image": image, "label": numbers[label]}


def _validation_labels(archive: zipfile.ZipFile) -> dict[str, str]:
    table = archive.read(f"{_FOLDER}/val/val_annotations.txt").decode()
    return dict(line.split("\t")[:2] for line in table.splitlines())

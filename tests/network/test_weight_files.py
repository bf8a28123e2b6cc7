"""Weight files that lie: what they claim is checked before memory is taken."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.weights import write_arrays
from tests.read_weights import read_layers


def lie_by_shape(group, path):
    group.create_dataset("fc6/kernel:0", shape=(1 << 20, 1 << 20), dtype="f4")  # 4 TiB, unwritten


def lie_by_chunks(group, path):
    data = group.create_dataset(
        "fc6/kernel:0",
        shape=(1 << 20, 1 << 20),
        dtype="f4",
        chunks=(64, 64),
        compression="gzip",
    )
    data[:64, :64] = 1


def point_to_another_file(group, path):
    write_arrays(path.with_name("secret.h5"), {"fc6": {"kernel": np.ones((4, 5))}}, {})
    group["fc6/kernel:0"] = h5py.ExternalLink("secret.h5", "fc6/fc6/kernel:0")


def store_in_another_file(group, path):
    secret = path.with_name("secret")
    secret.write_bytes(bytes(80))
    group.create_dataset("fc6/kernel:0", (4, 5), "f4", external=[(str(secret), 0, 80)])


def point_to_a_virtual_array(group, path):
    layout = h5py.VirtualLayout((4, 5), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "fc6/fc6/kernel:0", (4, 5))
    group.create_virtual_dataset("fc6/kernel:0", layout)


def point_within_the_file(group, path):
    group["fc6/kernel:0"] = h5py.SoftLink("/nowhere")


def hold_integers(group, path):
    group.create_dataset("fc6/kernel:0", data=np.ones((4, 5), np.int32))


def hold_a_group(group, path):
    group.create_group("fc6/kernel:0")


def hold_nothing(group, path):
    pass


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lie_by_shape, "fc6/fc6/kernel:0 claims 4398046511104 bytes of which 0 are stored"),
        (lie_by_chunks, "of which .* are stored, in a file of .* so it is damaged"),
        (point_to_another_file, "itself but a link to it"),
        (store_in_another_file, "does not hold the array"),
        (point_to_a_virtual_array, "does not hold the array"),
        (point_within_the_file, "itself but a link to it"),
        (hold_integers, "fc6/fc6/kernel:0 is int32 of shape"),
        (hold_a_group, "does not hold the array"),
        (hold_nothing, "fc6/kernel:0"),
    ],
)
def test_arrays_that_are_not_what_the_header_says(tmp_path, spoil, message):
    path = tmp_path / "spoilt.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"fc6"]
        group = file.create_group("fc6")
        group.attrs["weight_names"] = [b"fc6/kernel:0"]
        spoil(group, path)
    with pytest.raises(UserError, match=message):
        read_layers(path)


def test_group_in_another_file_is_not_followed(tmp_path):
    write_arrays(tmp_path / "secret.h5", {"fc6": {"kernel": np.ones((4, 5))}}, {})
    path = tmp_path / "spoilt.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"fc6"]
        file["fc6"] = h5py.ExternalLink("secret.h5", "fc6")
    with pytest.raises(UserError, match="itself but a link to it"):
        read_layers(path)

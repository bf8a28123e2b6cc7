"""TensorFlow's C interface, by which its servers and other languages load a SavedModel."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

_LIBRARIES = list(Path(tf.__file__).parent.glob("libtensorflow_cc.*"))
_STRING, _STRING_BYTES = tf.string.as_datatype_enum, 24
_POINTERS = (
    *("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel"),
    *("TF_GraphOperationByName", "TF_AllocateTensor", "TF_TensorData"),
)


def available() -> bool:
    """Whether the library comes with TensorFlow here."""
    return bool(_LIBRARIES)


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class Served:
    """A SavedModel in a session of the C interface.

    Args:
        folder: of the SavedModel.

    Raises:
        RuntimeError: it cannot be loaded; what TensorFlow says.
    """

    def __init__(self, folder: Path):
        self._library = library = ctypes.CDLL(str(_LIBRARIES[0]))
        for name in _POINTERS:
            getattr(library, name).restype = ctypes.c_void_p
        library.TF_Message.restype = ctypes.c_char_p
        library.TF_TensorByteSize.restype = ctypes.c_size_t
        library.TF_Dim.restype = ctypes.c_int64
        self._status = ctypes.c_void_p(library.TF_NewStatus())
        self._graph = ctypes.c_void_p(library.TF_NewGraph())
        options = ctypes.c_void_p(library.TF_NewSessionOptions())
        tags = (ctypes.c_char_p * 1)(b"serve")
        session = library.TF_LoadSessionFromSavedModel(
            options, None, str(folder).encode(), tags, 1, self._graph, None, self._status
        )
        self._check()
        self._session = ctypes.c_void_p(session)
        model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self._signatures = model.meta_graphs[0].signature_def

    def run(self, signature: str, value: np.ndarray | Sequence[bytes]) -> dict[str, np.ndarray]:
        """The outputs of a signature of one input, by name.

        Raises:
            RuntimeError: what TensorFlow says.
        """
        named = self._signatures[signature]
        (taken,) = named.inputs.values()
        outputs = (_Output * len(named.outputs))(
            *(self._output(output.name) for output in named.outputs.values())
        )
        inputs = (_Output * 1)(self._output(taken.name))
        values = (ctypes.c_void_p * 1)(self._tensor(value))
        results = (ctypes.c_void_p * len(outputs))()
        self._library.TF_SessionRun(
            *(self._session, None, inputs, values, 1, outputs, results, len(outputs)),
            *(None, 0, None, self._status),
        )
        self._check()
        return dict(zip(named.outputs, map(self._array, results), strict=True))

    def close(self) -> None:
        """Gives the memory of the weights back."""
        self._library.TF_DeleteSession(self._session, self._status)
        self._library.TF_DeleteGraph(self._graph)

    def _check(self) -> None:
        if self._library.TF_GetCode(self._status):
            raise RuntimeError(self._library.TF_Message(self._status).decode())

    def _output(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        found = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        return _Output(found, int(index))

    def _tensor(self, value: np.ndarray | Sequence[bytes]) -> int:
        is_array = isinstance(value, np.ndarray)
        shape = value.shape if is_array else (len(value),)
        kind = tf.uint8.as_datatype_enum if is_array else _STRING
        size = ctypes.c_size_t(value.nbytes if is_array else _STRING_BYTES * len(value))
        sides = (ctypes.c_int64 * len(shape))(*shape)
        tensor = self._library.TF_AllocateTensor(kind, sides, len(shape), size)
        place = self._library.TF_TensorData(ctypes.c_void_p(tensor))
        if is_array:
            ctypes.memmove(place, np.ascontiguousarray(value).ctypes.data, value.nbytes)
            return tensor
        for index, entry in enumerate(value):
            string = ctypes.c_void_p(place + index * _STRING_BYTES)
            self._library.TF_StringInit(string)
            self._library.TF_StringCopy(string, entry, ctypes.c_size_t(len(entry)))
        return tensor

    def _array(self, tensor: int) -> np.ndarray:
        tensor = ctypes.c_void_p(tensor)
        sides = range(self._library.TF_NumDims(tensor))
        shape = [self._library.TF_Dim(tensor, side) for side in sides]
        size = self._library.TF_TensorByteSize(tensor)
        data = ctypes.string_at(self._library.TF_TensorData(tensor), size)
        self._library.TF_DeleteTensor(tensor)
        return np.frombuffer(data, np.float32).reshape(shape)


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A SavedModel while it is served."""
    model = Served(folder)
    try:
        yield model
    finally:
        model.close()

"""What a SavedModel may do when it is loaded: compute, and nothing else.

A SavedModel is a program of TensorFlow operations, some of which read and write files or call
Python. An export of this package needs none of them.

Shapes and names
----------------
operation  the kind of a node of a graph, such as ``"Conv2D"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from keras_frcnn.errors import UserError

MODEL_FILE = "saved_model.pb"
# SaveV2, RestoreV2 and MergeV2Checkpoints are in every SavedModel: they load its variables.
REFUSED = frozenset(
    (
        *("ReadFile", "WriteFile", "MatchingFiles", "MatchingFilesDataset", "Save", "SaveSlices"),
        *("WholeFileReader", "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2"),
        *("FixedLengthRecordReader", "FixedLengthRecordReaderV2", "TFRecordReader"),
        *("TFRecordReaderV2", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2"),
        *("FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "CSVDataset", "CSVDatasetV2"),
        *("SqlDataset", "LoadDataset", "SaveDataset", "SaveDatasetV2", "SnapshotDataset"),
        *("SnapshotDatasetV2", "CacheDataset", "CacheDatasetV2", "DebugIdentityV2", "PrintV2"),
        *("PyFunc", "PyFuncStateless", "EagerPyFunc", "RpcCall", "RpcServer", "RpcClient"),
        *("DataServiceDataset", "DataServiceDatasetV2", "RegisterDataset", "RegisterDatasetV2"),
        *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "WriteSummary", "AudioSummary"),
        *("InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "LookupTableExportV2"),
    )
)


def check_operations(folder: Path) -> None:
    """Makes sure that no graph of a SavedModel touches a file or calls Python.

    Raises:
        UserError: one does, or ``saved_model.pb`` cannot be read.
    """
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / MODEL_FILE).read_bytes())
    except DecodeError as error:
        raise UserError(f"{folder} is damaged ({error}); export the run again.") from error
    refused = sorted(REFUSED.intersection(_operations(model)))
    if refused:
        raise UserError(
            f"{folder} is not loaded: it has the operation {refused[0]}, which touches files or "
            "calls programs, and which no export of keras_frcnn has."
        )


def _operations(model: saved_model_pb2.SavedModel) -> Iterator[str]:
    for graph in model.meta_graphs:
        yield from (node.op for node in graph.graph_def.node)
        for function in graph.graph_def.library.function:
            yield from (node.op for node in function.node_def)

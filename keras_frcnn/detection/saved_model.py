"""An exported SavedModel, read: it may compute when it is called, and nothing else.

A SavedModel is a program of TensorFlow operations. Some read and write files, call Python or other
machines, and every version of TensorFlow has more of them. So the operations of our exports are
listed here, and a model with any other is not loaded. Those that save and restore its variables
stand in two functions that only the saver's nodes call; TensorFlow's own reader calls neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedObjectGraph

from keras_frcnn.detection.exported_model import (
    AGAIN,
    ASSETS,
    DIGEST_FILE,
    MODEL_FILE,
    MOST_TEXT,
    ExportedModel,
    check_path,
    digest_of_export,
)
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import read_bounded, read_text_bounded

_MOST_BYTES = 1 << 28  # exports have some megabytes, their weights lie elsewhere
# None of them looks beyond its inputs and the variables. After ZerosLike follow control flow, whose
# functions are checked like all others; data sets in memory, by which a damaged photo is passed
# over; and variables.
_COMPUTING = """
Abs AddV2 All Any ArgMax ArgMin Assert AvgPool BiasAdd Bitcast BitwiseXor BroadcastTo Cast Ceil
ConcatV2 Const Conv2D CombinedNonMaxSuppression CropAndResize DecodeJpeg DecodePng DecodeRaw
EnsureShape Equal Exp ExpandDims ExtractJpegShape Fill Floor FloorDiv FloorMod GatherNd GatherV2
Greater GreaterEqual Identity IdentityN LeftShift Less LessEqual Log LogicalAnd LogicalNot
LogicalOr MatMul Max MaxPool Maximum Mean Min Minimum MirrorPad Mul Neg NoOp NonMaxSuppressionV3
NotEqual OnesLike Pack Pad PadV2 Placeholder Pow Prod Range Rank RealDiv Relu Reshape
ResizeBilinear Roll Round Rsqrt ScatterNd Select SelectV2 Shape Sigmoid Sign Size Softmax
SparseTensorDenseMatMul Split SplitV Sqrt Square SquaredDifference Squeeze StaticRegexFullMatch
StopGradient StridedSlice StringJoin Sub Substr Sum Tile TopKV2 Transpose Unpack
UnsortedSegmentSum Where ZerosLike If PartitionedCall StatefulPartitionedCall StatelessIf
StatelessWhile While TensorListConcatV2 TensorListFromTensor TensorListGetItem TensorListReserve
TensorListSetItem TensorListStack ConcatenateDataset DatasetToSingleElement IgnoreErrorsDataset
MapDataset TakeDataset TensorDataset AssignVariableOp DisableCopyOnRead ReadVariableOp VarHandleOp
VarIsInitializedOp
"""
COMPUTING = frozenset(_COMPUTING.split())
# They read and write any file that they are given the name of.
SAVING = frozenset(("MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"))


def load_exported(path: Path | str) -> ExportedModel:
    """Reads an exported model.

    Raises:
        UserError: the folder is none, is damaged, holds files of different exports, or as
            :func:`check_path` and :func:`check_operations`.
    """
    folder = Path(path)
    check_path(folder)
    with reading(folder, "an export of keras_frcnn", AGAIN):
        check_operations(folder)
        about = [read_text_bounded(folder / "assets" / name, MOST_TEXT) for name in ASSETS]
        if read_text_bounded(folder / DIGEST_FILE, MOST_TEXT) != digest_of_export(folder):
            raise ValueError("its weights, names and graph are of different exports")
        model = tf.saved_model.load(str(folder))

        def outputs(images: np.ndarray) -> dict[str, np.ndarray]:
            tensors = model.signatures["serving_default"](input_tensor=tf.constant(images))
            return {name: tensor.numpy() for name, tensor in tensors.items()}

        return ExportedModel(folder, outputs, about)


def check_operations(folder: Path) -> None:
    """Makes sure that a SavedModel computes only, whichever of its functions is called.

    Raises:
        UserError: it might do more, or is no export.
        OSError, ValueError, DecodeError: ``saved_model.pb`` cannot be read.
    """
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(read_bounded(folder / MODEL_FILE, _MOST_BYTES))
    # TensorFlow reads all others as it read those of version 1, which run their saver.
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].HasField("object_graph_def"):
        raise UserError(
            f"{folder} is damaged, or no export of keras_frcnn: it should hold one graph with its "
            f"objects, it holds {len(model.meta_graphs)} graphs; export the run again."
        )
    (graph,) = model.meta_graphs
    savers = _saver_functions(graph)
    refused = sorted(operations(graph.graph_def, apart_from=savers) - COMPUTING)
    refused += sorted(_operations_of(graph.graph_def, savers) - COMPUTING - SAVING)
    if refused:
        raise UserError(
            f"{folder} is not loaded: it has the operation {refused[0]}, which no export of "
            "keras_frcnn has there; others touch files or call programs. Export the run again."
        )
    misused = sorted(savers.intersection(_called_otherwise(graph)))
    if misused:
        raise UserError(
            f"{folder} is not loaded: its function {misused[0]}, which saves or restores files, "
            "is not the saver's alone. Export the run again."
        )


def operations(graph: GraphDef, apart_from: frozenset[str] = frozenset()) -> set[str]:
    """The operations of a graph and of the functions of its library.

    Args:
        apart_from: names of functions that are left out.
    """
    names = {function.signature.name for function in graph.library.function}
    return {node.op for node in graph.node} | _operations_of(graph, names - apart_from)


def _operations_of(graph: GraphDef, functions: Iterable[str]) -> set[str]:
    return {
        node.op
        for function in graph.library.function
        if function.signature.name in functions
        for node in function.node_def
    }


def _saver_nodes(graph: MetaGraphDef) -> set[str]:
    saver = graph.saver_def
    return {saver.save_tensor_name.partition(":")[0], saver.restore_op_name}


def _saver_functions(graph: MetaGraphDef) -> frozenset[str]:
    """The functions that the saver's nodes call, not those that these call in turn."""
    nodes = _saver_nodes(graph)
    called = (_called(node.attr) for node in graph.graph_def.node if node.name in nodes)
    return frozenset(name for names in called for name in names)


def _called_otherwise(graph: MetaGraphDef) -> Iterator[str]:
    """Names of functions that anything but the saver's nodes might call."""
    nodes = _saver_nodes(graph)
    for node in graph.graph_def.node:
        if node.name not in nodes:
            yield from _called(node.attr)
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            yield from _called(node.attr)
        # TensorFlow's optimizer may put one function of an interface in the place of another.
        if "api_implements" in function.attr:
            yield function.signature.name
    yield from _called_by_objects(graph.object_graph_def)


def _called(attributes: Mapping[str, AttrValue]) -> Iterator[str]:
    """Names of functions in the attributes of a node, those that a function is given included."""
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
                yield from _called(function.attr)


def _called_by_objects(objects: SavedObjectGraph) -> Iterator[str]:
    yield from objects.concrete_functions
    for node in objects.nodes:
        yield from node.function.concrete_functions
        yield node.bare_concrete_function.concrete_function_name

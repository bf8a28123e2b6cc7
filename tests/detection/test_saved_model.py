"""SavedModels: those of this package are loaded, whatever their network; programs are not.

Shapes and names
----------------
hostile  a model that would touch a file, call Python or another machine.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.detection.saved_model import (
    COMPUTING,
    SAVING,
    check_operations,
    load_exported,
    operations,
)
from keras_frcnn.errors import UserError
from keras_frcnn.export.saved_model import ExportedDetector, export
from keras_frcnn.network import roi_pooling, suppression
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.recipes import PAPER, Compression, DetectionFilter

CLASSES = ("disc", "square")
NETWORKS = ("tiny", "zf", "vgg16", "resnet50")
PRECISIONS = ("float32", "bfloat16", "float16")
POOLINGS = ("crop", "max", "align")
# Every network and every precision meets every pooling.
COMBINATIONS = [
    pytest.param(network, precision, POOLINGS[(i + j) % 3], marks=[pytest.mark.slow] * (i > 0))
    for i, network in enumerate(NETWORKS)
    for j, precision in enumerate(PRECISIONS)
]
HOSTILE = (
    *("ReadFile", "WriteFile", "MatchingFiles", "MatchingFilesDataset"),
    *("ExperimentalMatchingFilesDataset", "Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints"),
    *("ShardedFilename", "Restore", "RestoreSlice", "RestoreV2", "DistributedSave"),
    *("LoadAndRemapMatrix", "GenerateVocabRemapping", "ImmutableConst"),
    *("FileSystemSetConfiguration", "WholeFileReader", "WholeFileReaderV2", "TextLineReader"),
    *("TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2", "FixedLengthRecordReader"),
    *("FixedLengthRecordReaderV2", "LMDBReader", "LMDBDataset", "ExperimentalLMDBDataset"),
    *("TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset"),
    *("FixedLengthRecordDatasetV2", "CSVDataset", "CSVDatasetV2", "ExperimentalCSVDataset"),
    *("SqlDataset", "ExperimentalSqlDataset", "LoadDataset", "SaveDataset", "SaveDatasetV2"),
    *("SnapshotDataset", "SnapshotDatasetV2", "SnapshotDatasetReader", "SnapshotChunkDataset"),
    *("ListSnapshotChunksDataset", "CacheDataset", "CacheDatasetV2", "DebugIdentity"),
    *("DebugIdentityV2", "DebugIdentityV3", "DebugNumericSummary", "PrintV2", "PyFunc"),
    *("PyFuncStateless", "EagerPyFunc", "DataServiceDataset", "DataServiceDatasetV2"),
    *("DataServiceDatasetV3", "DataServiceDatasetV4", "RegisterDataset", "RegisterDatasetV2"),
    *("RemoteCall", "CreateSummaryFileWriter", "CreateSummaryDbWriter", "WriteSummary"),
    *("ImportEvent", "AudioSummary", "InitializeTableFromTextFile"),
    *("InitializeTableFromTextFileV2", "LookupTableExportV2"),
)


def make_predictor(network, precision="float32", pooling="crop", objectness="softmax", **options):
    """One whose weights are zeros: the graph is the same."""
    recipe = dataclasses.replace(
        PAPER,
        rpn=dataclasses.replace(PAPER.rpn, objectness=objectness),
        detector=dataclasses.replace(PAPER.detector, roi_pooling=pooling),
    )
    model = FasterRcnn(
        network,
        CLASSES,
        recipe,
        precision=precision,
        seed=None,
        compression=options.pop("compression", None),
        half_weights=options.pop("half_weights", True),
    )
    return NetworkDetector(model, options.pop("filters", DetectionFilter()), **options)


def traced_operations(predictor, tmp_path) -> set[str]:
    """Of both signatures: one calls the other."""
    names = tmp_path / "class_names.json"
    names.write_text("[]")
    module = ExportedDetector(predictor, [names])
    return operations(module.serve_encoded.get_concrete_function().graph.as_graph_def())


@pytest.mark.parametrize(("network", "precision", "pooling"), COMBINATIONS)
def test_every_network_computes_by_the_operations_of_the_list(
    tmp_path, network, precision, pooling
):
    found = traced_operations(make_predictor(network, precision, pooling), tmp_path)
    assert "Conv2D" in found and "DecodeJpeg" in found
    assert found <= COMPUTING


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("tiny", {"objectness": "logistic"}),
        ("tiny", {"half_weights": False, "precision": "float16"}),
        ("tiny", {"head_chunk": 64, "short_sides": (480, 600, 864)}),
        ("tiny", {"filters": DetectionFilter(0.0, per_class_before_nms=10, mean_per_class=40)}),
        ("tiny", {"detector_model": None}),
        ("zf", {"compression": Compression(8, 8)}),
        ("vgg16", {"compression": Compression(8, 8), "precision": "bfloat16"}),
    ],
    ids=["logistic", "weights", "scales", "filters", "unshared", "compressed zf", "compressed vgg"],
)
def test_so_does_every_way_to_predict(tmp_path, network, options):
    if "detector_model" in options:
        options = {"detector_model": make_predictor(network).model}
    assert traced_operations(make_predictor(network, **options), tmp_path) <= COMPUTING


def test_so_does_an_export_made_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(suppression, "gpu_present", lambda: True)
    found = traced_operations(make_predictor("tiny"), tmp_path)
    assert "NonMaxSuppressionV3" in found
    assert found <= COMPUTING


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    export(make_predictor("tiny", pooling="max"), folder)
    return folder


def test_what_is_written_is_accepted(exported):
    """With the saver's functions, which the graph before it is written has not."""
    check_operations(exported)
    (graph,) = read(exported).meta_graphs
    assert SAVING <= operations(graph.graph_def) <= COMPUTING | SAVING


@pytest.mark.parametrize("pooling", ["crop", "max"])
def test_an_export_with_a_gradient_of_its_own_is_accepted(tmp_path, monkeypatch, caplog, pooling):
    """That of RoI pooling is written too: without it TensorFlow warns whoever loads the model."""
    monkeypatch.setattr(roi_pooling, "is_op_determinism_enabled", lambda: False)
    export(make_predictor("tiny", pooling=pooling), tmp_path / "model")
    check_operations(tmp_path / "model")
    tf.saved_model.load(str(tmp_path / "model"))
    assert "gradient" not in caplog.text


def read(folder: Path) -> saved_model_pb2.SavedModel:
    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


@pytest.fixture
def changed(exported, tmp_path):
    """``changed(change)``: the folder of a copy of the program whose graph ``change`` has seen."""

    def make(change):
        model = read(exported)
        change(model.meta_graphs[0])
        (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
        return tmp_path

    return make


def saver_function(graph, word: str):
    (found,) = (f for f in graph.graph_def.library.function if word in f.signature.name)
    return found


def serving_function(graph):
    (found,) = (
        f
        for f in graph.graph_def.library.function
        if f.signature.name.startswith("__inference_signature_wrapper_serve_")
        and "encoded" not in f.signature.name
    )
    return found


def test_every_name_is_one_of_tensorflow():
    assert [name for name in {*COMPUTING, *SAVING, *HOSTILE} if not registered(name)] == []
    assert not COMPUTING & SAVING


def registered(name: str) -> bool:
    return op_def_registry.get(name) is not None


@pytest.mark.parametrize("operation", HOSTILE)
def test_an_operation_beyond_the_list_is_refused(changed, operation):
    """In a function that detection calls, in any function, and in the graph itself."""
    assert operation not in COMPUTING
    places = (serving_function, lambda graph: graph.graph_def.library.function[0])
    for place in places:
        folder = changed(lambda graph, place=place: place(graph).node_def.add(op=operation))
        with pytest.raises(UserError, match=f"has the operation {operation}, which no export"):
            check_operations(folder)
    folder = changed(lambda graph: graph.graph_def.node.add(op=operation, name="new"))
    with pytest.raises(UserError, match=f"has the operation {operation}, which no export"):
        check_operations(folder)


@pytest.mark.parametrize("word", ["traced_save", "traced_restore"])
def test_the_savers_functions_hold_nothing_else(changed, word):
    folder = changed(lambda graph: saver_function(graph, word).node_def.add(op="WriteFile"))
    with pytest.raises(UserError, match="has the operation WriteFile"):
        check_operations(folder)


def call_from_a_function(graph, name):
    node = serving_function(graph).node_def.add(op="StatefulPartitionedCall", name="new")
    node.attr["f"].func.name = name


def call_from_the_graph(graph, name):
    node = graph.graph_def.node.add(op="StatefulPartitionedCall", name="new")
    node.attr["f"].func.name = name


def call_from_a_list(graph, name):
    node = serving_function(graph).node_def.add(op="If", name="new")
    node.attr["branches"].list.func.add(name=name)


def call_from_an_argument(graph, name):
    """A function whose own call is filled in by its caller."""
    node = serving_function(graph).node_def.add(op="StatefulPartitionedCall", name="new")
    node.attr["f"].func.name = "outer"
    node.attr["f"].func.attr["f"].func.name = name


def call_from_an_object(graph, name):
    """As the function that initialises a resource, which loading runs."""
    graph.object_graph_def.nodes.add().function.concrete_functions.append(name)


def call_from_a_bare_object(graph, name):
    graph.object_graph_def.nodes.add().bare_concrete_function.concrete_function_name = name


def list_as_concrete(graph, name):
    graph.object_graph_def.concrete_functions[name].SetInParent()


def offer_as_implementation(graph, name):
    saver_function(graph, name).attr["api_implements"].s = b"detect"


@pytest.mark.parametrize(
    "call",
    [
        *(call_from_a_function, call_from_the_graph, call_from_a_list, call_from_an_argument),
        *(call_from_an_object, call_from_a_bare_object, list_as_concrete, offer_as_implementation),
    ],
)
@pytest.mark.parametrize("word", ["traced_save", "traced_restore"])
def test_the_savers_functions_are_called_by_nothing_else(changed, call, word):
    folder = changed(lambda graph: call(graph, saver_function(graph, word).signature.name))
    with pytest.raises(UserError, match=f"its function __inference__{word}.*not the saver's alone"):
        check_operations(folder)


def test_without_a_saver_no_function_may_save(changed):
    folder = changed(lambda graph: graph.saver_def.Clear())
    with pytest.raises(UserError, match="has the operation MergeV2Checkpoints"):
        check_operations(folder)


def test_only_one_graph_with_objects_is_read(exported, tmp_path):
    """TensorFlow reads others as those of version 1, whose saver is run."""
    model = read(exported)
    model.meta_graphs.append(model.meta_graphs[0])
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="it holds 2 graphs"):
        check_operations(tmp_path)
    del model.meta_graphs[1]
    model.meta_graphs[0].ClearField("object_graph_def")
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="one graph with its objects"):
        check_operations(tmp_path)


def save_a_file(path):
    tf.raw_ops.SaveV2(
        prefix=str(path), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.zeros(3)]
    )


def delete_files(path):
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(path)], destination_prefix=f"{path}-new", delete_old_dirs=True
    )


def restore_a_file(path):
    tf.raw_ops.RestoreV2(
        prefix=str(path), tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )


def call_python(path):
    tf.py_function(lambda: path.write_text("gotcha"), (), ())


@pytest.mark.parametrize(
    ("harm", "operation"),
    [
        (save_a_file, "SaveV2"),
        (delete_files, "MergeV2Checkpoints"),
        (restore_a_file, "RestoreV2"),
        (call_python, "EagerPyFunc"),
    ],
)
def test_a_model_that_would_do_harm_at_every_detection_is_not_loaded(tmp_path, harm, operation):
    target = tmp_path / "target"

    class Hostile(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        def serve(self, input_tensor):
            harm(target)
            return {"num_detections": tf.zeros((tf.shape(input_tensor)[0],))}

    module, folder = Hostile(), tmp_path / "model"
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "class_names.json").write_text('["disc"]')
    with pytest.raises(UserError, match=f"has the operation {operation}"):
        load_exported(folder)
    assert list(tmp_path.iterdir()) == [folder]

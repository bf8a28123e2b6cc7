"""No file that is read can bring code along: no pickle, no Keras deserialiser, no eval.

Shapes and names
----------------
finding  a place in the source, such as ``module.py:12: imports pickle``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("keras_frcnn", "notebooks", "benchmarks", "weights", ".")
    for path in (ROOT / folder).glob("*.py" if folder == "." else "**/*.py")
)
# Modules that run code of what they read, or write what must be read so.
MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("torch.serialization", "runpy", "imp"),
}
# Functions of any object: Keras' readers of layers and their configurations, above all.
CALLS = {
    *("__import__", "from_config", "model_from_json", "deserialize"),
    *("deserialize_keras_object", "enable_unsafe_deserialization", "load_weights", "read_pickle"),
    *("Lambda", "py_function", "numpy_function", "py_func"),
}
# Python's own; a network's method of this name sets it to testing.
BUILTINS = {"eval", "exec", "compile"}
# Of these modules only: this package has functions of such names, too.
KERAS_READERS = {"load_model"}
KERAS = {"keras", "models", "saving"}


def findings(source: str, name: str) -> Iterator[str]:
    """What a file could run code of its inputs by."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported = {node.module or ""}
        else:
            imported = set()
        for module in imported:
            if module in MODULES or module.split(".")[0] in MODULES:
                yield f"{name}:{node.lineno}: imports {module}"
        if isinstance(node, ast.Call):
            yield from (f"{name}:{node.lineno}: {reason}" for reason in _of_call(node))


def _of_call(node: ast.Call) -> Iterator[str]:
    called = node.func
    function = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    owner = called.value if isinstance(called, ast.Attribute) else None
    of = getattr(owner, "attr", getattr(owner, "id", ""))
    is_builtin = function in BUILTINS and owner is None
    if is_builtin or function in CALLS or (function in KERAS_READERS and of in KERAS):
        yield f"calls {function}"
    if function == "load" and of in ("np", "numpy"):
        options = {option.arg: option.value for option in node.keywords}
        allowed = options.get("allow_pickle")
        if not (isinstance(allowed, ast.Constant) and allowed.value is False):
            yield "calls numpy.load without allow_pickle=False"
    if function == "load" and of == "torch":
        yield "calls torch.load"
    if of == "yaml" and function != "safe_load":
        yield f"calls yaml.{function}"


def test_no_source_reads_code():
    assert len(SOURCES) > 100
    found = [
        finding
        for path in SOURCES
        for finding in findings(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "import torch.serialization",
        "import numpy as np\nnp.load('x.npy')",
        "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
        "import keras\nkeras.models.load_model('x.keras')",
        "import keras\nkeras.saving.load_model('x.keras')",
        "model.load_weights('x.h5')",
        "keras.layers.Dense.from_config({})",
        "eval('1')",
        "torch.load('x.pt')",
        "yaml.load(text)",
    ],
)
def test_each_way_would_be_found(source):
    assert list(findings(source, "example.py"))


def test_this_packages_own_functions_are_none():
    assert not list(findings("model = load_model(run)\nnp.load(p, allow_pickle=False)", "x.py"))

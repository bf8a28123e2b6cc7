"""What tests of the network share."""

from __future__ import annotations

import pytest

from keras_frcnn.network import suppression


@pytest.fixture(params=[False, True])
def on_gpu(request, monkeypatch):
    """Suppression by the kernel of the CPU, then by that of a GPU."""
    monkeypatch.setattr(suppression, "gpu_present", lambda: request.param)
    return request.param

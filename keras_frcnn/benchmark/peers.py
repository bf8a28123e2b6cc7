"""Other programs, to be timed in the same run: onnxruntime, and torchvision's Faster R-CNN."""

from __future__ import annotations

from functools import partial

import numpy as np

from keras_frcnn.benchmark.setting import Setting, random_batch, random_model, random_photo
from keras_frcnn.benchmark.testing import Part
from keras_frcnn.data.voc import VOC_CLASSES
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.errors import UserError


def onnx_parts(setting: Setting) -> dict[str, Part]:
    """Testing one image by onnxruntime: float32, and int8 that is calibrated on this image."""
    from keras_frcnn.detection.exported_model import OnnxDetector
    from keras_frcnn.export.onnx.convert import to_onnx
    from keras_frcnn.export.onnx.quantise import needs_seven_bits, quantise

    photo = random_photo(setting.recipe.image)
    network = random_model(setting, "float32")
    model = to_onnx(NetworkDetector(network, network.recipe.test_filter))
    del network
    int8 = quantise(model, [photo], seven_bit_weights=needs_seven_bits())
    parts = {}
    for name, form in (("float32", model), ("int8", int8)):
        detector = OnnxDetector(form.SerializeToString())
        parts[f"onnx {name}/whole"] = Part(partial(detector.outputs, photo[None]))
    return parts


def check_torchvision() -> None:
    """Makes sure that torchvision can be imported.

    Raises:
        UserError: it cannot; the message says why.
    """
    try:
        import torchvision.models.detection  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:  # also a build for another torch
        raise UserError(
            f"--compare torchvision: it cannot be imported here ({error}). Install torch and "
            "torchvision of one release, or leave --compare out."
        ) from error


def torchvision_parts(setting: Setting) -> dict[str, Part]:
    """torchvision's network on one image: a test, and a step of joint training."""
    import torch

    model = _torchvision_model(setting)
    photo = torch.from_numpy(random_photo(setting.recipe.image).copy())
    image = photo.permute(2, 0, 1).float() / 255
    batch = {name: np.array(value) for name, value in random_batch(setting.recipe.image, 1).items()}
    y1, x1, y2, x2 = torch.from_numpy(batch["gt_boxes"][0]).unbind(1)
    target = {
        "boxes": torch.stack((x1, y1, x2, y2), 1),
        "labels": torch.from_numpy(batch["gt_classes"][0]).long(),
    }
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9, weight_decay=0.0005)

    def test() -> None:
        model.eval()
        with torch.inference_mode():
            model([image])

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        sum(model([image], [target]).values()).backward()
        optimizer.step()

    return {"torchvision testing": Part(test), "torchvision joint": Part(step)}


def _torchvision_model(setting: Setting):
    """With VGG-16, and as many proposals and RoIs as the paper's."""
    import torch
    from torchvision.models import vgg16
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(0)
    body = vgg16(weights=None).features[:-1]
    body.out_channels = 512
    for layer in list(body)[:10]:  # conv1 and conv2, as in the paper
        layer.requires_grad_(False)
    config, width = setting.recipe.image, 4096
    return FasterRCNN(
        body,
        min_size=config.short_side,
        max_size=config.long_side,
        rpn_anchor_generator=AnchorGenerator(((128, 256, 512),), ((0.5, 1.0, 2.0),)),
        rpn_pre_nms_top_n_test=6000,
        rpn_post_nms_top_n_test=setting.proposals,
        rpn_pre_nms_top_n_train=12000,
        rpn_post_nms_top_n_train=2000,
        box_batch_size_per_image=128,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(512 * 7 * 7, width),
        box_predictor=FastRCNNPredictor(width, len(VOC_CLASSES) + 1),
    )

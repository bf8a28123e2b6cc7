"""The numbers of the paper (Ren, He, Girshick, Sun; NIPS 2015), to stand beside our own."""

from __future__ import annotations

from keras_frcnn.recipes import Network

# Selective Search and Fast R-CNN with VGG-16, the code released with the paper, six runs (table 2,
# footnote).
REPEATED_MEAN, REPEATED_DEVIATION = 68.0, 0.3

# Table 1: mAP on VOC 2007 test, detectors ZF, trained on VOC 2007 trainval.
TABLE1 = {
    "ss": 58.7,
    "eb": 58.6,
    "rpn-shared": 59.9,
    "rpn-unshared": 58.7,
    "rpn-100": 55.1,
    "rpn-300": 56.8,
    "rpn-1000": 56.3,
    "rpn-no-nms-6000": 55.2,
    "rpn-no-cls-100": 44.6,
    "rpn-no-cls-300": 51.4,
    "rpn-no-cls-1000": 55.8,
    "rpn-no-reg-300": 52.1,
    "rpn-no-reg-1000": 51.3,
    "rpn-vgg-300": 59.2,
}

# Table 4: milliseconds an image on a K40 (SS on a CPU): conv, proposal, region-wise.
TABLE4: dict[tuple[Network, str], tuple[int, int, int]] = {
    ("vgg16", "ss"): (146, 1510, 174),
    ("vgg16", "rpn"): (141, 10, 47),
    ("zf", "rpn"): (31, 3, 25),
}
# Text of section 4: SS and Fast R-CNN with VGG-16, fully connected layers by SVD, proposals apart.
TABLE4_SVD_MILLISECONDS = 223

# Table 5: mAP on VOC 2007 test, ZF.
TABLE5 = {"two-stage": 58.7, "one-stage-1": 53.8, "one-stage-5": 53.9}

# Section 3.3 and its table: the learned average proposal (width, height) of each anchor, ZF.
AVERAGE_PROPOSALS = (
    (128, "2:1", 188, 111),
    (128, "1:1", 113, 114),
    (128, "1:2", 70, 92),
    (256, "2:1", 416, 229),
    (256, "1:1", 261, 284),
    (256, "1:2", 174, 332),
    (512, "2:1", 768, 437),
    (512, "1:1", 499, 501),
    (512, "1:2", 355, 715),
)
# Section 3.3, of a 1000x600 image: anchors in all, inside the image, proposals left by NMS.
ANCHORS_IN_ALL, ANCHORS_INSIDE, PROPOSALS_AFTER_NMS = 20_000, 6_000, 2_000
# Section 3: receptive field of the features, in pixels of the input.
RECEPTIVE_FIELDS = {"zf": 171, "vgg16": 228}
# Section 3.1: the RPN's output layers; section 3.3 of the NIPS version gives 2.4 M for the RPN.
RPN_PARAMETERS = {"vgg16": 2_400_000}


def _systems(text: str) -> dict[tuple[str, str], tuple[float, tuple[float, ...]]]:
    """Proposals and training data, mAP and the AP of each class, three lines a system."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {
        (proposals, training): (float(mean), tuple(map(float, first + second)))
        for (proposals, training, mean), first, second in zip(
            lines[::3], lines[1::3], lines[2::3], strict=True
        )
    }


# Tables 2 and 6: VGG-16 on VOC 2007 test.
VOC2007 = _systems(
    """
    ss 07 66.9
      74.5 78.3 69.2 53.2 36.6 77.3 78.2 82.0 40.7 72.7
      67.9 79.6 79.2 73.0 69.0 30.1 65.4 70.2 75.8 65.8
    ss 07+12 70.0
      77.0 78.1 69.3 59.4 38.3 81.6 78.6 86.7 42.8 78.8
      68.9 84.7 82.0 76.6 69.9 31.8 70.1 74.8 80.4 70.4
    rpn-unshared 07 68.5
      74.1 77.2 67.7 53.9 51.0 75.1 79.2 78.9 50.7 78.0
      61.1 79.1 81.9 72.2 75.9 37.2 71.4 62.5 77.4 66.4
    rpn-shared 07 69.9
      70.0 80.6 70.1 57.3 49.9 78.2 80.4 82.0 52.2 75.3
      67.2 80.3 79.8 75.0 76.3 39.1 68.3 67.3 81.1 67.6
    rpn-shared 07+12 73.2
      76.5 79.0 70.9 65.5 52.1 83.1 84.7 86.4 52.0 81.9
      65.7 84.8 84.6 77.5 76.7 38.8 73.6 73.9 83.0 72.6
    """
)

# Tables 3 and 7: VGG-16 on VOC 2012 test.
VOC2012 = _systems(
    """
    ss 12 65.7
      80.3 74.7 66.9 46.9 37.7 73.9 68.6 87.7 41.7 71.1
      51.1 86.0 77.8 79.8 69.8 32.1 65.5 63.8 76.4 61.7
    ss 07++12 68.4
      82.3 78.4 70.8 52.3 38.7 77.8 71.6 89.3 44.2 73.0
      55.0 87.5 80.5 80.8 72.0 35.1 68.3 65.7 80.4 64.2
    rpn-shared 12 67.0
      82.3 76.4 71.0 48.4 45.2 72.1 72.3 87.3 42.2 73.7
      50.0 86.8 78.7 78.4 77.4 34.5 70.1 57.1 77.1 58.9
    rpn-shared 07++12 70.4
      84.9 79.8 74.3 53.9 49.8 77.5 75.9 88.5 45.6 77.1
      55.3 86.9 81.7 80.9 79.6 40.1 72.6 60.9 81.2 61.5
    """
)

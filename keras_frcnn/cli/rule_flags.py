"""The flags of ``train_frcnn.py`` for the rules of the paper, with their sources."""

from __future__ import annotations

from keras_frcnn.cli.common import number, whole_number
from keras_frcnn.recipes import BOX_NORMALISERS, OBJECTNESS, DetectorConfig, RpnConfig


def add_rule_flags(group) -> None:
    """Anchors, the RPN's and the detector's sampling and losses: what the paper decided."""
    rpn, detector = RpnConfig(), DetectorConfig()
    iou = number(0, 1)
    group.add_argument(
        "--anchor_scales",
        metavar="S,S,...",
        help="sides in units of 16 px of the input\ndefault: 8,16,32 (generate_anchors.py:37-97)",
    )
    group.add_argument(
        "--anchor_ratios",
        metavar="R,R,...",
        help="height / width\ndefault: 0.5,1,2 (generate_anchors.py:37-97)",
    )
    group.add_argument(
        "--anchors",
        metavar="FILE",
        help="anchor shapes (JSON) of python -m keras_frcnn anchors, instead of scales and ratios\n"
        "default: none, see --anchor_scales",
    )
    group.add_argument(
        "--rpn_positive_iou",
        type=number(0, 1, above=True),
        metavar="IOU",
        help="from which an anchor is positive\n"
        f"default: {rpn.positive_iou} (anchor_target_layer.py:137-150)",
    )
    group.add_argument(
        "--rpn_negative_iou",
        type=iou,
        metavar="IOU",
        help="below which it is negative\n"
        f"default: {rpn.negative_iou} (anchor_target_layer.py:142-154)",
    )
    group.add_argument(
        "--rpn_minibatch",
        type=whole_number(2),
        metavar="N",
        help=f"anchors sampled of an image\ndefault: {rpn.minibatch_size} (config.py:108)",
    )
    group.add_argument(
        "--objectness",
        choices=OBJECTNESS,
        metavar="KIND",
        help="softmax of two logits an anchor, or logistic: one\n"
        f"default: {rpn.objectness} (footnote 2, stage1_rpn_train.pt:450-458)",
    )
    group.add_argument(
        "--rpn_box_normaliser",
        choices=BOX_NORMALISERS,
        metavar="KIND",
        help="of the RPN's box loss: positions of the map with lambda 10, or sampled anchors with "
        "lambda 1\n"
        "default: positions (footnote 3); sampled with py-faster-rcnn "
        "(anchor_target_layer.py:181-194)",
    )
    group.add_argument(
        "--keep_cross_boundary",
        action="store_true",
        default=None,
        help="train on anchors that cross the image's border too\n"
        "default: they are left out (section 3.3)",
    )
    group.add_argument(
        "--foreground_iou",
        type=number(0, 1, above=True),
        metavar="IOU",
        help=f"from which a RoI is foreground\ndefault: {detector.foreground_iou} (config.py:53)",
    )
    group.add_argument(
        "--background_iou",
        metavar="LOW,HIGH",
        help="between which it is background\n"
        "default: 0.1,0.5 (fast_rcnn_config.m:31-32); 0,0.5 with py-faster-rcnn "
        "(faster_rcnn_alt_opt.yml)",
    )
    group.add_argument(
        "-n",
        "--num_rois",
        type=whole_number(1),
        metavar="N",
        help=f"RoIs of a step, over its {detector.images_per_step} images; joint: of an image\n"
        f"default: {detector.rois_per_step} (config.py:50; 32 in the lineage)",
    )
    group.add_argument(
        "--dropout",
        type=number(0, 0.99),
        metavar="RATE",
        help="after fc6 and fc7; 0 where they start from random weights and the training is short\n"
        "default: 0.5 (VGG16/stage1_fast_rcnn_train.pt:379-413); tiny and resnet50: 0 (ours)",
    )
    group.add_argument(
        "--min_size",
        type=number(0),
        metavar="PX",
        help="smallest side of a proposal in pixels of the original image\n"
        "default: 16 (config.py:118)",
    )

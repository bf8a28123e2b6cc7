"""The flags of ``train_frcnn.py``; :mod:`keras_frcnn.cli.train_recipe` tells what they change."""

from __future__ import annotations

import argparse

from keras_frcnn.cli.common import ORIGINS, HelpfulParser, number, whole_number
from keras_frcnn.cli.fields import add_fields
from keras_frcnn.cli.shared_flags import add_flags, add_path_flags, add_training_set_flag
from keras_frcnn.recipes import (
    NETWORKS,
    RECIPES,
    AnchorConfig,
    DetectorConfig,
    ImageConfig,
    OptimizerConfig,
    ProposalConfig,
    RpnConfig,
)
from keras_frcnn.runs.config import LARGEST_SEED

EPILOG = f"""\
the two recipes (all numbers with their sources: keras_frcnn/recipes.py):
  paper           backgrounds at IoU 0.1 to 0.5, RPN box targets normalised
  py-faster-rcnn  backgrounds at IoU 0 to 0.5, RPN smooth L1 with sigma 3,
                  also as --mode joint

{ORIGINS}
examples:
  train_frcnn.py -p VOCdevkit
  train_frcnn.py -p VOCdevkit --train_set 07+12 --name voc0712
  train_frcnn.py -p boxes.txt -o simple --num_epochs 2 --short_side 400
  train_frcnn.py -p VOCdevkit --proposals voc_2007_trainval.mat --name fast-rcnn
  train_frcnn.py -p VOCdevkit --resume
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with its groups; every default is named with its origin."""
    parser = HelpfulParser(
        prog="train_frcnn.py",
        usage="train_frcnn.py -p PATH [flags]",
        description="Train Faster R-CNN by the paper's four alternating steps, or jointly.",
        epilog=EPILOG,
    )
    _add_data(parser.add_argument_group("data"))
    _add_model(parser.add_argument_group("network and weights"))
    _add_schedule(parser.add_argument_group("schedule"))
    _add_rules(parser.add_argument_group("rules of the paper"))
    _add_run(parser.add_argument_group("run folder and machine"))
    return parser


def _add_data(group) -> None:
    add_path_flags(
        group,
        help="VOCdevkit folder (with VOC2007 and/or VOC2012), or the text file of -o simple",
    )
    add_training_set_flag(group)
    group.add_argument(
        "--hf",
        dest="flips",
        action="store_true",
        default=True,
        help="see every image mirrored, too\ndefault: on (imdb.py:102-117; off in the lineage)",
    )
    group.add_argument(
        "--no-hf",
        dest="flips",
        action="store_false",
        help="see images only as they are\ndefault: off (imdb.py:102-117)",
    )
    add_fields(group, ImageConfig)
    add_flags(group, "strict")


def _add_model(group) -> None:
    group.add_argument(
        "--network",
        default="vgg16",
        metavar="NAME",
        choices=(*NETWORKS, "vgg"),
        help="vgg16 (or vgg), zf, resnet50; tiny is for demos and tests\n"
        "default: vgg16 (section 4.1; resnet50 in the lineage)",
    )
    group.add_argument(
        "--weights",
        metavar="KIND",
        choices=("imagenet", "random"),
        help="imagenet or random: what to start from without --input_weight_path\n"
        "default: imagenet (section 3.1)",
    )
    group.add_argument(
        "--input_weight_path",
        metavar="FILE",
        help="start from a Keras HDF5 file, a .weights.h5 of this package or a run folder\n"
        "default: none, see --weights",
    )
    group.add_argument(
        "--output_weight_path",
        metavar="FILE",
        help="copy the final weights there too, any suffix\n"
        "default: only in the run folder (ours; ./model_frcnn.hdf5 in the lineage)",
    )
    group.add_argument(
        "--precision",
        default="float32",
        metavar="TYPE",
        choices=("float32", "bfloat16", "float16", "auto"),
        help="of convolutions and fc layers: float32, bfloat16, float16, or auto: what is measured "
        "fastest here; losses and boxes are always float32\ndefault: float32 (Caffe's)",
    )
    add_fields(group, DetectorConfig, "roi_pooling")


def _add_schedule(group) -> None:
    group.add_argument(
        "--recipe",
        metavar="NAME",
        choices=tuple(RECIPES),
        help="paper or py-faster-rcnn, see below\ndefault: paper; py-faster-rcnn with --mode joint",
    )
    group.add_argument(
        "--mode",
        metavar="MODE",
        choices=("alternating", "joint"),
        default="alternating",
        help="alternating: the four steps; joint: approximate joint training\n"
        "default: alternating (section 3.2)",
    )
    group.add_argument(
        "--proposals",
        nargs="+",
        metavar="FILE",
        help="train Fast R-CNN alone, stage 2, on these: files of python -m keras_frcnn proposals, "
        "or .mat files of Selective Search; all boxes as they are, mirrored for mirrored images "
        "unless the file has theirs\n"
        "default: none, the RPN's",
    )
    group.add_argument(
        "--stages",
        metavar="1,2",
        help="stop early; 1,2 is the unshared variant; --resume with more goes on\n"
        "default: 1,2,3,4 (section 3.2)",
    )
    group.add_argument(
        "--iterations",
        metavar="A,B,C,D",
        help="of the four stages, the drop of the learning rate at the same fraction\n"
        "default: 80000,40000,80000,40000 (train_faster_rcnn_alt_opt.py:80), of the detector "
        "60000 on 07+12 (VGG16_for_Faster_RCNN_VOC0712.m:20) and 100000 on 07++12; joint: 70000 "
        "(faster_rcnn_end2end.sh); one number with --proposals, 40000",
    )
    group.add_argument(
        "--num_epochs",
        type=number(0, above=True),
        metavar="E",
        help="scale every stage to E passes instead; a pass is every image that the stage sees "
        "once in each orientation\n"
        "default: see --iterations, about 8 on VOC 2007 (2000 of 1000 iterations in the lineage)",
    )
    group.add_argument(
        "--learning_rate",
        metavar="LR[,LR...]",
        help="one, or one for each stage; a tenth of it in the last quarter (joint: 2/7, detector "
        "on 07+12: half, on 07++12: 3/5)\n"
        "default: 0.001 (stage1_rpn_solver60k80k.pt:3-10)",
    )
    add_fields(group, OptimizerConfig)


def _add_rules(group) -> None:
    add_fields(group, AnchorConfig)
    group.add_argument(
        "--anchors",
        metavar="FILE",
        help="anchor shapes (JSON) of python -m keras_frcnn anchors, instead of scales and ratios\n"
        "default: none, see --anchor_scales",
    )
    add_fields(group, RpnConfig)
    add_fields(group, DetectorConfig, "foreground_iou")
    group.add_argument(
        "--background_iou",
        metavar="LOW,HIGH",
        help="between which it is background\n"
        "default: 0.1,0.5 (fast_rcnn_config.m:31-32); 0,0.5 with py-faster-rcnn "
        "(faster_rcnn_alt_opt.yml)",
    )
    add_fields(group, DetectorConfig, "rois_per_step", "dropout")
    add_fields(group, ProposalConfig, "min_size_image")


def _add_run(group) -> None:
    group.add_argument(
        "--name",
        help="run folder runs/NAME, with the next number where it exists\n"
        "default: the network's name (ours)",
    )
    group.add_argument(
        "--out", metavar="DIR", help="run folder\ndefault: the next free runs/NAME (ours)"
    )
    group.add_argument(
        "--config_filename",
        metavar="FILE",
        help="write the configuration (JSON) there too; test_frcnn.py takes it\n"
        "default: only in the run folder (ours; config.pickle in the lineage)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on where the same command stopped\ndefault: off, a new run (ours)",
    )
    group.add_argument(
        "--seed",
        type=whole_number(0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="of everything random\ndefault: 0 (ours; config.py:184 has 3)",
    )
    add_flags(group, "jit", "gpu")
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="repeatable kernels on GPUs too, with --roi_pooling max, as crop's gradient has none "
        "there; same seed, data and machine: same weights, bit for bit. On the CPU it is always "
        "so\n"
        "default: off, they are slower and max takes several times crop's time (ours)",
    )
    group.add_argument(
        "--feature_cache",
        metavar="PLACE",
        choices=("auto", "memory", "disk", "off"),
        default="auto",
        help="where stages 3 and 4 keep the frozen base's features: memory, disk, off\n"
        "default: auto, memory, else disk, else computed at each step (ours)",
    )
    group.add_argument(
        "--cache",
        metavar="PLACE",
        choices=("auto", "memory", "disk", "off"),
        default="auto",
        help="where the decoded images are kept, in 8 bits: memory, disk, off\n"
        "default: auto, memory, else disk, else read at each step (ours)",
    )
    group.add_argument(
        "--cache_budget",
        type=number(0),
        metavar="GIB",
        help="most for each of the two\n"
        "default: half of the free memory, 80%% of the disk that training leaves free (ours)",
    )
    group.add_argument(
        "--checkpoint_minutes",
        type=number(0, above=True),
        default=10.0,
        metavar="MIN",
        help="between checkpoints\ndefault: 10 (ours)",
    )
    group.add_argument(
        "--workers",
        type=whole_number(1, 256),
        default=2,
        metavar="N",
        help="decoding threads\ndefault: 2 (ours)",
    )

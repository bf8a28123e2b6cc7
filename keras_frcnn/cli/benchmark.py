"""``python -m keras_frcnn benchmark``: time and memory of every part on this machine."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import output_file, progress_bar, start
from keras_frcnn.errors import UserError, check_installed
from keras_frcnn.recipes import NETWORKS, POOLINGS, PRECISIONS
from keras_frcnn.system.files import write_text

WORK = ("testing", "training")
EPILOG = """\
All parts are timed in turns, so that another load of the machine falls on all
of them; compare CPU seconds within one run. "x limit": seconds over those that
the part's multiplications and additions take in large matrix products; what of
a step is counted: keras_frcnn/benchmark/operations.py. "images/s": stages 2 and
4 see two images a step.

examples:
  python -m keras_frcnn benchmark --precision float32,bfloat16
  python -m keras_frcnn benchmark --work testing --compressed --memory
  python -m keras_frcnn benchmark --work testing --onnx
  python -m keras_frcnn benchmark --compare torchvision --out benchmark.json
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with its defaults."""
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn benchmark",
        usage="python -m keras_frcnn benchmark [flags]",
        description="Time every part of testing and training on random images and weights.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to time")
    group.add_argument(
        "--work",
        type=flags.some_of(WORK),
        default=WORK,
        metavar="KINDS",
        help="testing, training or both with a comma\ndefault: both",
    )
    flags.add(
        group,
        "network",
        choices=NETWORKS,
        default="vgg16",
        help="vgg16, zf, resnet50, tiny\ndefault: vgg16",
    )
    group.add_argument(
        "--precision",
        type=flags.some_of(PRECISIONS),
        default=("float32",),
        metavar="TYPES",
        help="float32, bfloat16, float16, several with commas\ndefault: float32",
    )
    flags.add(group, "short_side", default=600, help="height of the input\ndefault: 600")
    group.add_argument(
        "--long_side",
        type=flags.whole_number(32),
        default=800,
        metavar="PX",
        help="its width\ndefault: 800",
    )
    flags.add(
        group, "num_proposals", default=300, help="proposals of an image in testing\ndefault: 300"
    )
    group.add_argument(
        "--roi_pooling",
        choices=POOLINGS,
        default="crop",
        metavar="KIND",
        help="crop, max, align\ndefault: crop",
    )
    flags.add_switch(
        group,
        "--compressed",
        "testing with fc6 and fc7 as truncated SVD (1024, 256), too\ndefault: off",
    )
    flags.add_switch(
        group,
        "--onnx",
        "testing by onnxruntime, too: the network as an ONNX file, float32 and int8; needs "
        "the extra onnx\ndefault: off",
    )
    group.add_argument(
        "--compare",
        choices=("torchvision",),
        metavar="NAME",
        help="torchvision: its FasterRCNN on VGG-16 in the same run (float32)\ndefault: none",
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--repetitions",
        type=flags.whole_number(1),
        default=5,
        metavar="N",
        help="measured rounds, after two that are not\ndefault: 5",
    )
    flags.add_switch(
        group,
        "--memory",
        "peak memory of testing and of the steps, each in a process of its own\ndefault: off",
    )
    group.add_argument("--out", metavar="FILE", help="write everything as JSON\ndefault: none")
    flags.add(group, "gpu")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Times, prints tables, writes the record.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.long_side < arguments.short_side:
        raise UserError("--long_side is less than --short_side: exchange them.")
    out = None if arguments.out is None else output_file(arguments.out, "--out")
    if arguments.onnx:
        if "testing" not in arguments.work:
            raise UserError("--onnx is testing: let --work name it, or leave --onnx out.")
        check_installed("ONNX files", ["onnx", "onnxruntime", "tf2onnx"], "onnx")
    if arguments.compressed and "testing" not in arguments.work:
        raise UserError("--compressed is testing: let --work name it, or leave --compressed out.")
    # As training has it; on a GPU determinism refuses the gradient of the default RoI pooling.
    console, device = start(arguments.gpu, deterministic=False)
    from keras_frcnn.benchmark.plan import Plan, machine
    from keras_frcnn.benchmark.plan import measured as measure
    from keras_frcnn.benchmark.report import print_tables, record
    from keras_frcnn.benchmark.setting import Setting

    if arguments.compare:
        from keras_frcnn.benchmark.peers import check_torchvision

        check_torchvision()
    plan = Plan(
        setting=Setting(
            arguments.network,
            arguments.short_side,
            arguments.long_side,
            arguments.num_proposals,
            arguments.roi_pooling,
        ),
        work=arguments.work,
        precisions=arguments.precision,
        compressed=arguments.compressed,
        onnx=arguments.onnx,
        peer=arguments.compare is not None,
        repetitions=arguments.repetitions,
        memory=arguments.memory,
    )
    measured = measure(plan, console.status, functools.partial(progress_bar, console))
    about = machine(device)
    if out is not None:
        write_text(out, json.dumps({**about, **record(measured)}, indent=2) + "\n")
    versions = ", ".join(f"{name} {text}" for name, text in about["versions"].items())
    console.print(f"{device}; {about['processor']}; {versions}", soft_wrap=True)
    print_tables(measured, console)
    if out is not None:
        console.print(f"written to {out}", soft_wrap=True)

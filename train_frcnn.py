"""Train Faster R-CNN; see ``python train_frcnn.py --help``."""

from keras_frcnn.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main("train"))

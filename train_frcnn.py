"""Train Faster R-CNN; see ``python train_frcnn.py --help``."""

from keras_frcnn.cli.train import entry_point

if __name__ == "__main__":
    raise SystemExit(entry_point())

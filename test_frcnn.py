"""Detect objects in images; see ``python test_frcnn.py --help``."""

from keras_frcnn.cli.test import entry_point

if __name__ == "__main__":
    raise SystemExit(entry_point())

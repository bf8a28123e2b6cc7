"""Detect objects in images; see ``python test_frcnn.py --help``."""

from keras_frcnn.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main("test"))

"""Faster R-CNN (Ren, He, Girshick and Sun, NIPS 2015) for Keras and TensorFlow."""

import os
import sys

# Its networks are TensorFlow's. Where Keras is there with another backend, the network says so.
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"

__version__ = "0.1.0"

"""Faster R-CNN (Ren, He, Girshick and Sun, NIPS 2015) for Keras and TensorFlow."""

__version__ = "0.1.0"

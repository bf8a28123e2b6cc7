"""Proposals from outside the training: their file, and the methods that make them."""

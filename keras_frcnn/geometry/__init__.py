"""Boxes and anchors: plain functions of tensors that know nothing of any network."""

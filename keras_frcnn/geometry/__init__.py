"""Boxes and anchors: plain functions of tensors that know nothing of any network.

Shapes and names
----------------
boxes  (..., 4) float32, half-open (y1, x1, y2, x2) in pixels; see ``boxes.py``.
anchors  (A, 4) float32, boxes at the nine shapes of every feature-map cell; see ``anchors.py``.
"""

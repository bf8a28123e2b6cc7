"""What the losses compare with: matching, sampling and regression targets of both networks.

All of it runs inside one ``tf.function`` on one image at a time, with stateless randomness: the
same seed gives the same samples.

Shapes and names
----------------
A  anchors of an image; P proposals; R sampled RoIs; G ground-truth boxes; C classes incl.
    background.
labels  int32: RPN 1 object, 0 background, -1 not sampled; detector the class, 0 background.
seed  (2,) int32 of the stateless random functions.
"""

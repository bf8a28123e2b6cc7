"""The shared base, the region proposal network and the Fast R-CNN detector on top of it."""

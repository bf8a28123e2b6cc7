"""From images to detections: one protocol for runs and exports, and the loops over many images."""

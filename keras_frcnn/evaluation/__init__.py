"""What a detector is worth: average precision, and the files that carry detections."""

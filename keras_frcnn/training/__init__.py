"""The four alternating steps of the paper, and approximate joint training."""

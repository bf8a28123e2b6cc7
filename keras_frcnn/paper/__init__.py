"""Every table and figure of the paper's experiments, one module each."""

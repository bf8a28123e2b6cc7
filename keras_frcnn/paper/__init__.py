"""Every table and figure of the paper's experiments; ``catalogue`` says where each is made."""

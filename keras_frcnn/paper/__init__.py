"""Every table and figure of the paper's experiments; :mod:`catalogue` says which module makes which."""

"""Time, memory and distance to the machine's limit of every part of the network."""

"""The run folder: its configuration, weights, metrics, and the table of the stages."""

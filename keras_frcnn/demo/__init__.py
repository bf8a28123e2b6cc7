"""A small data set of drawn shapes, for the demo and the tests."""

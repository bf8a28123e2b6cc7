"""Readers, checks and the one preprocessing of images."""

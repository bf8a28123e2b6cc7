"""Command lines: flags and messages, no logic."""

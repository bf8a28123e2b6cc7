"""Files, locks, signals, devices and precision: the machine beneath, nothing of detection."""

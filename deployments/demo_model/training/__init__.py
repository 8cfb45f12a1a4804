"""Training of the demo model; it needs requirements.lock of this folder, nothing else does."""

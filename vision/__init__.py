"""The constructed image recogniser (see `constructible vision --help` and docs/vision.md)."""

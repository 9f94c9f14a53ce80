"""The constructed image recogniser (not built yet; see `constructible vision --help`)."""

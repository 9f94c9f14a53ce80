"""Which mode of transport is in charge of a parcel."""


def route(state):
    """Ground first, then by mode."""
    if state.mode in ("road", "rail"):
        if state.mode == "road":
            return "road"
        return "rail"
    elif state.mode == "air":
        return "air"
    elif state.mode == "sea":
        return "sea"
    return "hand"

"""Named networks with their taps, preprocessing and weights."""

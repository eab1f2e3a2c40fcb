"""``review``: labels of uncertain images, on a local page."""

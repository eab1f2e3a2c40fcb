"""Found things: outlines in images, measured, counted by rules, exchanged with other programs."""

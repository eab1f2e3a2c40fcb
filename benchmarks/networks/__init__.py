"""Networks compared: accuracy, defects, time, memory, and what a position in the image changes."""

"""Information bars of instruments: found, missed, invented, and to which row."""

"""Scale bars that are drawn into images: found, missed, invented, and how long."""

"""Diameters of fibres, compared with their exact values."""

"""Formats: pixels, sizes and bars of files made and found; the same vectors; reading speed."""

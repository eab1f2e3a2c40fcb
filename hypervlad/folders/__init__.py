"""Labelled folders of images and their checks; folders of patches."""

"""Label the images that a model is unsure of, on a local page, and train with the labels.

The page itself needs Flask and waitress (``pip install "hypervlad[review]"``) but no model: PyTorch
is imported only where images are classified.
"""

"""Images in, VLAD vectors out: the scikit-learn transformer."""

"""What follows the classification of images: copies in a folder per class, and growing tables."""

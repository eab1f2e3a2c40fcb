"""The queue of images that a model is unsure of, and the page on which people label them."""

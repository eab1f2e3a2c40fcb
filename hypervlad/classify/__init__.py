"""From a list of images to classes with probabilities, explanations and reliability."""

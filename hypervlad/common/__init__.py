"""What all other parts use: base classes, model files, checks of parameters, files, messages."""

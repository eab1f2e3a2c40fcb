"""What all rooms use: base classes, model files, checks of parameters, files, messages."""

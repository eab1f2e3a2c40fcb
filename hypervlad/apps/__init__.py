"""What people start: the command line (``cli``) and the page for labels (``review``)."""

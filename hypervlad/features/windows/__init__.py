"""Windows and patches of images; ``maps``, ``vectors`` and ``dataset`` need torch."""

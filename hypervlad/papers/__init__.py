"""The systems of the papers, and their networks: a small CNN on patches, transfer learning."""

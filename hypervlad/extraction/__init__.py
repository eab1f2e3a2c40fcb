"""Features of whole folders: computed once, in any number of processes, resumable at any moment."""

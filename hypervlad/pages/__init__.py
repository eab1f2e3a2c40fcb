"""What pages, figures and folders of results have in common: templates, colours, facts, numbers."""

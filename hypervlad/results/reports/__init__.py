"""Results as files: HTML pages, tables (CSV), maps (TIFF), and facts about models."""

"""Results as files: HTML pages, tables (CSV), maps (TIFF), and facts about models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

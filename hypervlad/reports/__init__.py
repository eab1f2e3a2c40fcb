"""Results as files: HTML pages, tables (CSV), maps (TIFF), and facts about models.

The public names are listed in ``__init__.pyi`` and imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Reading micrographs of any format: images, masks, pixel sizes and digests."""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

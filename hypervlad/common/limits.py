"""What a file, an image, a model or a request may ask for at most, and why.

Files come from other people. A few bytes of one must not take minutes, or all of the memory. A file
that is above a limit is refused with an error that names both. Values that the same limit always
allows begin with ``ALLOWED``.
"""

from __future__ import annotations

# --- images ---------------------------------------------------------------------------------------

#: Of an image: 1.6 GB as 32-bit floats. The default of ``max_pixels``, which a user can raise.
MAX_PIXELS = 400_000_000
#: Bytes of the description inside an image; those of instruments are much shorter.
MAX_METADATA_TEXT = 2**20
#: Bytes of a file beside an image, such as a .hdr or .txt, for the same reason.
MAX_SIDECAR = 2**20
#: Steps from one part of a JPEG or JPEG 2000 file to the next; parts may be as short as a byte.
MAX_SEGMENTS = 10_000
#: Axes that the description of a TIFF may name, as their lengths are multiplied.
MAX_TIFF_DIMENSIONS = 16
#: Values of a tile or chunk, whatever the image's size: small images may have large ones.
ALLOWED_CHUNK_VALUES = 2**24
#: Chunks of an image: each is read and decompressed by calls of its own, however small it is.
MAX_CHUNKS = 2**18
#: Bytes by which compression may lengthen a chunk of noise.
MAX_CHUNK_OVERHEAD = 2**12
#: Bytes of a JSON file in an OME-Zarr folder, which is read whole.
MAX_ZARR_JSON = 2**24
#: Levels of an OME-Zarr pyramid: the last of more would be smaller than a pixel.
MAX_ZARR_LEVELS = 64
#: Groups and datasets of an HDF5 file: all are opened in search of images.
MAX_HDF5_OBJECTS = 10_000
#: Bytes of the metadata of one frame of a Velox file, or of the positions along an axis.
MAX_VELOX_TEXT = 2**22
#: Bytes of all metadata of a Velox file: many images may share one text, which is parsed for each.
MAX_VELOX_TEXTS = 2**25
#: Bytes of an HDF5 file that are searched for heaps of texts; longer reads are of pixels.
MAX_HEAP_READ = 2**20
#: Texts in all its heaps: in forged ones, the HDF5 library would search for ever.
MAX_HEAP_TEXTS = 2**20

# --- the network's input --------------------------------------------------------------------------

#: Side of an image that passes the network whole. Measured on a CPU, it takes 1 GB on mobilenet_v2
#: and 2.4 GB on VGG-16: what a laptop can give.
MAX_INPUT_SIDE = 2048
#: The same of images that are not square.
MAX_INPUT_PIXELS = MAX_INPUT_SIDE**2

# --- JSON and messages ----------------------------------------------------------------------------

#: Lists and objects inside each other: Python reads and writes them by recursion.
MAX_JSON_NESTING = 32
#: Values of a JSON file: in memory, each takes many times the bytes that it has in the file.
MAX_JSON_VALUES = 2**20
#: Digits of a whole number: those of 64 bits have at most 19 and a sign.
MAX_JSON_DIGITS = 20
#: Characters of a message that quotes a file.
MAX_QUOTED = 500

# --- outlines and particles -----------------------------------------------------------------------

#: Bytes of a file of outlines in JSON, or of regions of ImageJ when they are unpacked.
MAX_OUTLINES_BYTES = 2**28
#: Values of its JSON: two for each corner, so some 100,000 outlines.
MAX_OUTLINES_VALUES = 2**23
#: Crossings of a polygon with rows of pixels, which are all in memory to fill it.
MAX_CROSSINGS = 2**23
#: Coordinate of a corner: no image is as large, and products of two are exact in 64 bits.
MAX_COORDINATE = 1e9
#: Label of a particle: label images have 32 bits, with a sign.
MAX_LABEL = 2**31 - 1
#: Characters of a rule such as "area > 100 and roundness > 0.5".
MAX_RULE = 1000

# --- model files ----------------------------------------------------------------------------------

#: Bytes of the header: names of half a million training images, if these have no commas and colons.
#: A forged one could need 25 times its size.
MAX_MODEL_HEADER = 2**25
#: Bytes of an array of labels for each character in the file: NumPy pads all to one length.
MAX_LABEL_PADDING = 256
#: Bytes of such an array that are allowed in any case.
ALLOWED_LABEL_BYTES = 2**20
#: Number in a codebook, far from the largest one of single precision, 3e38.
MAX_CODEBOOK_VALUE = 1e20
#: Coordinate of a training image: squares of distances stay finite in single precision.
MAX_POINT = 1e15
#: Number of a model of defect-free images: squares of sums of products stay finite likewise.
MAX_NORMAL_VALUE = 1e7
#: Splits on the way to a leaf: each costs a step for all rows and trees.
MAX_TREE_DEPTH = 64
#: Columns: xgboost counts them in 32 bits.
MAX_TREE_COLUMNS = 2**24
#: Threads of xgboost: it takes any number, and starts as many.
MAX_THREADS = 1024

# --- the labelling page ---------------------------------------------------------------------------

#: Seconds for a request to arrive, and between two requests of a connection.
MAX_REQUEST_SECONDS = 5
#: Connections without a complete request, which cost a socket each.
MAX_WAITING_CONNECTIONS = 50
#: Bytes of the header of a request, which is kept until it is complete.
MAX_REQUEST_HEADER = 2**14
#: Bytes of the body of a request: a category and a few numbers.
MAX_REQUEST_BODY = 2**12
#: The same of an edit of outlines, with the points of a stroke.
MAX_EDIT_BODY = 2**16
#: The same of what is saved on a page of results: masks of 48 images.
MAX_SAVED_BODY = 2**24
#: Images decoded at a time: each may need a gigabyte.
MAX_DECODING = 2
#: Previews that wait for that; the other threads of the server are for clicks.
MAX_WAITING_PREVIEWS = 2
#: Seconds that a click waits for networks that look at another image: a browser waits for 30.
MAX_WAIT = 20.0
#: The same of a preview, for which a browser waits for ten minutes.
MAX_WAIT_FOR_PREVIEW = 300.0
#: Seconds that a process waits for the next preview: it takes 250 MB.
MAX_IDLE_SECONDS = 600
#: Images on a page of labels, corrected at a time.
MAX_LABELS_AT_ONCE = 120
#: Images that one browser holds, so that others get some.
MAX_LEASED = 32
#: Categories of a queue, which the page lists.
MAX_CATEGORIES = 500
#: Characters of the name of a category, on a button.
MAX_CATEGORY_NAME = 80
#: Bytes of the name of a file, on most file systems.
MAX_NAME = 255

"""Files with the layouts of the instruments that write them."""

import struct

import numpy as np
import tifffile

GREY = np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8)

FEI = """[User]\r
Date=01/01/2020\r
[Scan]\r
PixelWidth={across}e-009\r
PixelHeight={down}e-009\r
VerFieldsize={field}\r
[Image]\r
ResolutionX=320\r
ResolutionY={rows}\r
[PrivateFei]\r
DatabarHeight={bar}\r
"""

ZEISS = """1\r
2.5\r
0\r
AP_PIXEL_SIZE\r
Pixel Size = 111.1 nm\r
AP_IMAGE_PIXEL_SIZE\r
Image Pixel Size = {size}\r
"""
TESCAN_MAIN = """Company=TESCAN ORSAY HOLDING\r
ImageStripSize=24\r
PixelSizeX=41.5e-9\r
PixelSizeY=41.5e-9\r
"""
TESCAN_SEM = "AcceleratorVoltage=15000.0\r\nHV=15000.0\r\nWD=0.01\r\n"
TESCAN_HDR = f"[MAIN]\r\n{TESCAN_MAIN}[SEM]\r\n{TESCAN_SEM}"
HITACHI = """[SemImageFile]\r
InstructName=SU8230\r
ImageName=a.tif\r
DataSize=320x240\r
PixelSize=9.921875\r
Magnification=10000\r
WorkingDistance=8100 \u00b5m\r
"""
JEOL = """$SEM_DATA_VERSION 1
$$SM_ADD_IMAGE 
$CM_FORMAT JEOL-SEM
$$SM_MICRON_BAR 80
$$SM_MICRON_MARKER 10um
$CM_FULL_SIZE 320 220
$AN_TEXT%0 5.00 874.00 "X:0.827um" "Courier New" 0 32.0
"""  # noqa: W291
JEOL_TEM = """<?xml version="1.0"?>\r
<TemReporter xmlns:xsd="http://www.w3.org/2001/XMLSchema">\r
  <Manufacturer>JEOL Ltd.</Manufacturer>\r
  <Eos>\r
    <EosMode>{eos}</EosMode>\r
  </Eos>\r
  <ImageFormingSystem>\r
    <SelectorValue>{value}</SelectorValue>\r
    <SelectorUnitString>{unit}</SelectorUnitString>\r
  </ImageFormingSystem>\r
</TemReporter>"""
THERMO = """<?xml version="1.0" encoding="UTF-8"?>
<Metadata xmlns:nil="http://schemas.fei.com/Metadata/v1/2013/07">
  <StageSettings><StagePosition><X unit="m">-4.1E-05</X><Y unit="m">2E-05</Y></StagePosition></StageSettings>
  <BinaryResult>
    <ImageSize><X>320</X><Y>240</Y></ImageSize>
    <PixelSize><X unit="{unit}" unitPrefixPower="1">{size}</X><Y unit="{unit}" unitPrefixPower="1">{size}</Y></PixelSize>
  </BinaryResult>
</Metadata>"""  # noqa: E501
PHENOM = """<?xml version="1.0"?><FeiImage><databarHeight>32</databarHeight>
<pixelWidth unit="um">0.694952</pixelWidth><pixelHeight unit="um">0.694952</pixelHeight>
<instrument><edition>Phenom ProX</edition></instrument></FeiImage>"""
FEI_CAMERA = """[Beam]\r
Beam=IRBeam\r
[IRBeam]\r
HFW=0.08\r
[Image]\r
ResolutionX=320\r
ResolutionY=240\r
[PrivateFei]\r
DatabarHeight=0\r
"""
OPENFIBSEM = {
    "image": {"beam_type": "ELECTRON", "resolution": [320, 240], "hfw": 1.6e-6},
    "version": "v3",
    "pixel_size": {"x": 5.5e-9, "y": 5.5e-9},
    "system": {"info": {"fibsem_version": "0.4"}},
}


def fei(across=4.88281, down=None, *, rows="", bar="", field=""):
    return FEI.format(across=across, down=down or across, rows=rows, bar=bar, field=field)


def zeiss(size):
    return ZEISS.format(size=size).encode("cp1252")


def tescan_tag():
    """A thumbnail, and two texts: each with its length and kind before it."""
    chunks = [(1, b"\xff\x4f\xff\x51\x80\n[x\x00" * 9), (2, TESCAN_MAIN), (3, TESCAN_SEM)]
    blob = b""
    for kind, content in chunks:
        content = content if isinstance(content, bytes) else content.encode("latin-1") + b"\0"
        blob += struct.pack("<IH", len(content) + 2, kind) + content
    return blob + bytes(6)


def tvips_tag(version=2):
    parts, layouts = [], [tifffile.TIFF.TVIPS_HEADER_V1, tifffile.TIFF.TVIPS_HEADER_V2]
    for layout in layouts[:version]:
        header = np.zeros((), np.dtype(layout).newbyteorder("<"))
        facts = {"Version": version, "PixelSizeX": 1.25, "PixelSizeY": 1.25, "Magic": 0xAAAAAAAA}
        for name in set(facts) & set(header.dtype.names):
            header[name] = facts[name]
        parts.append(header.tobytes())
    return b"".join(parts)


def write_tiff(path, *extra, image=GREY, **options):
    """Write a TIFF with further tags: text, or bytes of a binary layout."""
    tags = [
        (code, "s" if isinstance(v, str) or code == 34118 else "B", 0, v, True) for code, v in extra
    ]
    options = {"metadata": None, "photometric": "minisblack"} | options
    tifffile.imwrite(path, image, extratags=tags, **options)


def write_ome(path, *images, n_pages=1):
    """Write pages, and XML with the attributes and elements of the pixels of each image."""
    each = (f"<Image><Pixels {image}</Pixels></Image>" for image in images)
    xml = f'<OME UUID="urn:uuid:1">{"".join(each)}</OME>'
    write_tiff(path, image=np.stack([GREY] * n_pages), description=xml.encode())


def write_olympus(path, image=GREY):
    """The size is in a structure at an offset in the file."""
    general = struct.pack("<10xhdd8xd2x34s32s", -9, 0.023928, 0.023928, 6e5, b"Quemesa", b"")
    head = struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 42, 19, 15, 10, 118, b"", 1)
    blob = head + struct.pack("<hhI", 1, 1, 0x7EADBEEF) + general
    write_tiff(path, (33560, blob), image=image)
    content = path.read_bytes()
    start = content.index(b"SIS0") + len(head) + 8
    path.write_bytes(content.replace(struct.pack("<I", 0x7EADBEEF), struct.pack("<I", start)))


def write_gatan(path, unit="\u00b5m", image=GREY):
    text = unit.encode("latin-1")
    tags = [(65003, "s", 0, text, True), (65004, "s", 0, text, True)]
    tags += [(65009, "d", 1, 0.25, True), (65010, "d", 1, 0.25, True)]
    tifffile.imwrite(path, image, extratags=tags, metadata=None, photometric="minisblack")


def write_odemis(path, size='PhysicalSizeX="0.0055" PhysicalSizeY="0.0055"', image=GREY):
    ome = f"<OME><Image><Pixels {size}><TiffData IFD='0'/></Pixels></Image></OME>"
    resolution = {"resolution": (1e7 / 5.5, 1e7 / 5.5), "resolutionunit": "CENTIMETER"}
    write_tiff(path, description=ome, software="Odemis 3.4.1", image=image, **resolution)


def write_jeol_tem(path, eos="eosTEM", value=150_000, unit="X", image=GREY):
    xml = JEOL_TEM.format(eos=eos, value=value, unit=unit)
    # The description is padded with zeros, and ends in a one.
    tags = ((270, xml + 500 * "\0" + "\x01"), (271, "JEOL Ltd."), (272, "JEM-ARM200F"))
    write_tiff(path, *tags, image=image, resolution=(93, 93), resolutionunit="INCH")


def write_openfibsem(path, image=GREY, **changes):
    facts = {key: value for key, value in (OPENFIBSEM | changes).items() if value}
    tifffile.imwrite(path, image, metadata=facts)


def tagged(*extra, **options):
    return lambda path: write_tiff(path, *extra, **options)


THERMO_NM = THERMO.format(unit="m", size="2.5E-10")
PER_CM = {"resolution": (8e6, 8e6), "resolutionunit": "CENTIMETER"}
DPI = {"resolution": (300, 300), "resolutionunit": "INCH"}
TAG, TEXT = "TIFF tag", "TIFF description"
# What writes a TIFF, its pixel size in nm, and what states that.
TIFFS = {
    "fei": (tagged((34682, fei())), 4.88281, f"{TAG} 34682: Scan.PixelWidth"),
    "fei, early": (tagged((34680, fei())), 4.88281, f"{TAG} 34680: Scan.PixelWidth"),
    "fei, resized": (tagged((34682, fei().replace("X=320", "X=640"))), None, None),
    "camera": (
        tagged((34682, FEI_CAMERA)), 250_000, f"{TAG} 34682: IRBeam.HFW / Image.ResolutionX"
    ),
    "thermo": (tagged((34683, THERMO_NM)), 0.25, f"{TAG} 34683: PixelSize.X"),
    "thermo, diffraction": (tagged((34683, THERMO.format(unit="1/m", size="7E7"))), None, None),
    "phenom": (tagged((34683, PHENOM)), 694.952, f"{TAG} 34683: PixelWidth"),
    "zeiss": (tagged((34118, zeiss("1.235 nm"))), 1.235, f"{TAG} 34118: ap_image_pixel_size"),
    "zeiss, resized": (
        tagged((34118, zeiss("1 nm") + b"DP_IMAGE_STORE\r\nStore resolution = 640 * 480\r\n")),
        *(None, None),
    ),
    "zeiss, monitor": (  # as if the image had 1,024 columns
        tagged((34118, zeiss("-"))), 355.52, f"{TAG} 34118: ap_pixel_size / columns/1024"
    ),
    "tescan": (tagged((50431, tescan_tag())), 41.5, f"{TAG} 50431: PixelSizeX"),
    "tvips": (tagged((37706, tvips_tag())), 1.25, f"{TAG} 37706: PixelSizeX"),
    "tvips, early": (tagged((37706, tvips_tag(1)), **PER_CM), 1.25, f"{TAG} 37706: 1/XResolution"),
    "olympus": (write_olympus, 0.023928, f"{TAG} 33560: pixelsizex"),
    "gatan": (write_gatan, 250, "TIFF tags 65003 to 65010: 65009"),
    "gatan, diffraction": (lambda path: write_gatan(path, "1/nm"), None, None),
    "jeol": (write_jeol_tem, 2.54e7 / 93 / 150_000, f"{TEXT}: 1/XResolution / SelectorValue"),
    "jeol, diffraction": (lambda path: write_jeol_tem(path, "eosTEM", 400, "mm"), None, None),
    "odemis": (write_odemis, 5.5, "OME"),
    "openfibsem": (write_openfibsem, 5.5, f"{TEXT}: pixel_size.x"),
    "dots per inch": (tagged(**DPI), None, None),
}  # fmt: skip

"""Copies of an image as people make them: shifted, scaled, recoloured, compressed, labelled."""

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).save(
        stream, "JPEG", quality=quality
    )
    return np.asarray(Image.open(stream), np.float32) / 255


def resize(image, scale):
    height, width = (round(extent * scale) for extent in image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def window(image, top, left, margin=16):
    height, width = image.shape
    return image[margin + top : height - margin + top, margin + left : width - margin + left]


def with_banner(image, seed=0):
    image = image.copy()
    rows = max(6, image.shape[0] // 11)
    text = np.random.default_rng(seed).random((rows, image.shape[1])) > 0.7
    image[-rows:] = gaussian_filter(text.astype(np.float32), 0.7)
    return image


def framed(image, share, level):
    return np.pad(image, round(share * min(image.shape)), constant_values=level)


def stretched(image, share):
    height, width = image.shape
    size = (round(width * (1 + share)), height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def with_caption(image):
    """Below the image, a white strip with a line of text, and a margin around both."""
    height, width = image.shape
    strip = np.ones((height // 8, width), np.float32)
    strip[height // 32 : -height // 32, width // 20 : width // 2 : 3] = 0
    return framed(np.vstack([image, strip]), 0.03, 1)


SEVERAL = "shift, size, contrast and JPEG"
CHANGES = {
    "shift by 1 % of the frame": lambda im: (window(im, 0, 0), window(im, 1, -1)),
    "shift by 6 %": lambda im: (window(im, 0, 0), window(im, 8, 3)),
    "shift by 12 %": lambda im: (window(im, 0, 0), window(im, -4, 15)),
    "brightness and contrast": lambda im: (im, 0.3 + 0.5 * im),
    "gamma": lambda im: (im, im**1.5),
    "inverse scaling kept": lambda im: (im, np.float32(0.02) + im * 0.1),
    "JPEG 30": lambda im: (im, jpeg(im, 30)),
    "half size": lambda im: (im, resize(im, 0.5)),
    "1.7 times the size": lambda im: (im, resize(im, 1.7)),
    "2 % magnification": lambda im: (im, resize(im[2:-2, 2:-2], 1.02)),
    "banner": lambda im: (im, with_banner(im)),
    "shading": lambda im: (im, im * np.linspace(0.5, 1.2, im.shape[1], dtype=np.float32)),
    "stretched by 6 %": lambda im: (im, stretched(im, 0.06)),
    "black frame": lambda im: (im, framed(im, 0.1, 0)),
    "thin white frame, JPEG 60": lambda im: (im, jpeg(framed(im, 0.02, 1), 60)),
    "grey frame, stretched": lambda im: (im, stretched(framed(im, 0.05, 0.4), -0.05)),
    "frame in a frame": lambda im: (im, framed(framed(im, 0.02, 0), 0.06, 1)),
    "caption": lambda im: (im, jpeg(with_caption(im), 80)),
    SEVERAL: lambda im: (window(im, 0, 0), jpeg(0.2 + 0.6 * resize(window(im, -5, 4), 0.8), 60)),
}

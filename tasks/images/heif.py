"""HEIC and HEIF, as phones write photographs: read where pillow-heif is installed."""

from functools import cache
from importlib.util import find_spec

AVAILABLE = find_spec("pillow_heif") is not None
SUFFIXES = ("heic", "heif", "hif")
FORMAT = "HEIF"
"""Pillow's name"""
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
INSTALL = "pip install 'mae-bench[heif]'"


def is_heif(data: bytes) -> bool:
    """Whether a file begins as one in HEIF does (ISO/IEC 23008-12); AVIF has other brands."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


def formats() -> tuple[str, ...]:
    """What Pillow may take such a file for, once it has been told how; nothing without the package.

    Its images are turned already, as the format itself says; EXIF's tag in them is for information.
    """
    if not AVAILABLE:
        return ()
    tell_pillow()
    return (FORMAT,)


@cache
def tell_pillow() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)

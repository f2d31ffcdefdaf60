"""What the page holds within itself: pictures, and data that its scripts unpack."""

import base64
import gzip
import io
import json
from typing import Any

from PIL import Image


def data_uri(picture: bytes) -> str:
    """A picture of any format as an address that holds it: WebP, a quarter of a PNG."""
    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(small, format="WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(small.getvalue()).decode("ascii")


def packed(content: bytes) -> str:
    """Bytes, compressed by gzip, as letters.

    Examples
    --------
    >>> gzip.decompress(base64.b64decode(packed(b"codes")))
    b'codes'
    """
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def packed_json(content: Any) -> str:
    """Numbers and texts as JSON, packed: no text of a STAR can be taken for markup."""
    return packed(json.dumps(content, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace"))

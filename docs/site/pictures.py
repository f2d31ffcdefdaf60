"""The pictures of the pages, from a finished run of the demo: ``python docs/site/pictures.py RUN``.

Needs Chromium, and a display for napari::

    xvfb-run -a -s "-screen 0 1600x1000x24" env QT_QPA_PLATFORM=xcb python docs/site/pictures.py RUN

The report of the run is taken as it is: run ``cryodc report`` before.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 150_000
_PARTS = {
    "report.png": ("main", 1000),
    "class_card.png": ("#class1", None),
    "codes.png": (".scatter[data-panel=content]", None),
}


def save_small(png: bytes, path: Path) -> None:
    """Write a picture in as many colours as leave it below the limit."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32):
        image.quantize(colours).save(path, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            return
    raise SystemExit(f"{path} cannot be made smaller than {MOST_BYTES} bytes")


def picture_report(report: Path) -> None:
    """Photograph parts of a report in Chromium."""
    from tests.report.browser import chromium

    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as page:
        page.open(report, 1100)
        page.run("document.querySelector('body > nav').remove()")
        # Where the run lies on the machine that made the pictures tells a reader nothing.
        page.run("document.querySelector('h1').textContent = 'demo / run'")
        page.run(
            "(e => e.textContent = e.textContent.split('/').slice(-3).join('/'))(document.querySelector('.front code'))"
        )
        for name, (selector, height) in _PARTS.items():
            page.box(selector)
            if selector == "#class1":
                page.wait("document.querySelector('#class1 .turned').classList.contains('live')")
            page.run("new Promise(done => setTimeout(done, 1000))")
            box = page.run(
                f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
                "return {x: b.x, y: b.y + scrollY, width: b.width, height: b.height, scale: 1}; })()"
            )
            clip = {**box, "height": min(box["height"], height or box["height"])}
            shot = page.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            save_small(base64.b64decode(shot["data"]), PICTURES / name)


def picture_viewer(run: Path) -> None:
    """Photograph napari with a particle clicked."""
    from qtpy.QtWidgets import QApplication

    from cryodc.runs import RunFolder
    from cryodc.viewer import open_viewer
    from cryodc.viewer.dock import CodesDock

    viewer = open_viewer(RunFolder(run))
    viewer.window._qt_window.resize(1400, 900)
    dock = viewer.window._qt_window.findChild(CodesDock)
    dock.show_particle(7)
    QApplication.processEvents()
    viewer.reset_view()
    QApplication.processEvents()
    buffer = io.BytesIO()
    Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).save(buffer, format="PNG")
    save_small(buffer.getvalue(), PICTURES / "napari.png")
    viewer.close()


def main(run: Path) -> None:
    """Make every picture."""
    from cryodc.figures import orthoslices_png
    from cryodc.io import read_volume

    PICTURES.mkdir(exist_ok=True)
    save_small(orthoslices_png(read_volume(run / "averages" / "class001.mrc")), PICTURES / "slices.png")
    picture_report(run / "report.html")
    picture_viewer(run)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]))

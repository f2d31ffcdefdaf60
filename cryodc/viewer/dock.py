"""The dock widget beside the canvas: codes, sets, classes; each button calls one verb of the session."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from cryodc.errors import InputError
from cryodc.figures import class_colour, surface_png
from cryodc.io import read_volume
from cryodc.runs import current_names
from cryodc.viewer.layers import LayerData, class_layer, particle_layer, position_layer, tomogram_names
from cryodc.viewer.raster import point_colours, value_colours
from cryodc.viewer.scatter import Scatter
from cryodc.viewer.session import NamedSet, Session

PARTICLE_LAYERS = ("particle", "particle low-passed", "its class average")
_NO_TOMOGRAM = "positions in a tomogram …"
_BY_CLASS = "colour by class"
_MOST_NAMED = 12


class CodesDock(QWidget):
    """What a user does with the codes of a run.

    Parameters
    ----------
    session
        The run.
    viewer
        Where averages and particles are shown.
    """

    def __init__(self, session: Session, viewer: Any) -> None:
        super().__init__()
        self.session, self.viewer = session, viewer
        self.scatter = Scatter(session.plane, point_colours(session.classes))
        self.colour = QComboBox()
        self.colour.setAccessibleName("what colours the codes")
        self.colour.addItems([_BY_CLASS, *session.columns])
        self.colour.currentTextChanged.connect(lambda label: self._recolour())
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self._recolour()
        self.scatter.clicked.connect(self.show_particle)
        self.scatter.outlined.connect(lambda outline: self._try(lambda: self._add_set(outline)))
        self.sets = QListWidget()
        self.sets.setAccessibleName("sets of particles")
        self.sets.setMaximumHeight(96)
        self.sets.currentRowChanged.connect(self._mark)
        self.sets.itemChanged.connect(lambda item: session.rename_set(self.sets.row(item), item.text()))
        self.classes = QListWidget()
        self.classes.setAccessibleName("classes")
        self.classes.setIconSize(QSize(120, 40))
        self.tomograms = QComboBox()
        self.tomograms.addItems([_NO_TOMOGRAM, *tomogram_names(session.run)])
        self.tomograms.setVisible(self.tomograms.count() > 1)
        self.tomograms.textActivated.connect(lambda name: self._try(lambda: self._show_positions(name)))
        self.status = QLabel("Draw a line round codes, or click one.")
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.average_button = self._button("Average", lambda: self._average(self._chosen()))
        self.class_button = self._button("Make class", lambda: self._reclassify(session.make_class))
        self.split_button = self._button("Split its class here", lambda: self._reclassify(session.split))
        self.star_button = self._button("Write STAR …", self._write_set)
        self.keep_button = self._button("Write the ticked classes …", self._write_classes)
        self._arrange()
        self._list_classes()

    def show_particle(self, row: int) -> None:
        """Show one particle as recorded, low-passed, and its class's average in its pose."""
        look = self.session.look(row)
        pictures = (look.shown.raw, look.shown.filtered, look.average)
        for column, (name, voxels) in enumerate(zip(PARTICLE_LAYERS, pictures, strict=True)):
            if voxels is None:
                self._remove(name)
            else:
                self._show(particle_layer(voxels, name, self.session.box_angstrom, column))
        self.scatter.point_to(row)
        self.status.setText(look.caption)

    def _arrange(self) -> None:
        buttons = QGridLayout()
        for at, button in enumerate((self.average_button, self.star_button, self.class_button, self.split_button)):
            buttons.addWidget(button, at // 2, at % 2)
        column = QVBoxLayout(self)
        column.addWidget(self.colour)
        column.addWidget(self.scatter, stretch=3)
        column.addWidget(self.legend)
        column.addWidget(self.sets)
        column.addLayout(buttons)
        column.addWidget(self.status)
        column.addWidget(self.classes, stretch=2)
        column.addWidget(self.keep_button)
        column.addWidget(self.tomograms)

    def _button(self, text: str, act: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: self._try(act))
        return button

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except InputError as error:
            self.status.setText(str(error))

    def _add_set(self, outline: list[tuple[float, float]]) -> None:
        chosen = self.session.add_set(outline)
        item = QListWidgetItem(chosen.name)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        item.setToolTip("double-click to give it another name")
        self.sets.addItem(item)
        self.sets.setCurrentItem(item)

    def _chosen(self) -> NamedSet:
        row = self.sets.currentRow()
        if row < 0:
            raise InputError("no set is chosen", remedy="draw a line round some codes first")
        return self.session.sets[row]

    def _mark(self, row: int) -> None:
        self.scatter.mark(self.session.marked(row if row >= 0 else None))
        if row >= 0:
            self.status.setText(self.session.describe(self.session.sets[row]))

    def _average(self, chosen: NamedSet) -> None:
        result, said = self.session.average(chosen)
        number = 1 + max([0, *self.session.averaged])
        data, how, kind = class_layer(result.volume, f"average of {chosen.name}", number)
        how["colormap"] = {**how["colormap"], "colors": ["black", "#B0B0B0", "white"], "name": "chosen"}
        self._show((data, how, kind))
        self.status.setText(said)

    def _reclassify(self, verb: Callable[[NamedSet], str]) -> None:
        said = verb(self._chosen())
        self._recolour()
        self._list_classes()
        self.status.setText(said)

    def _recolour(self) -> None:
        coloured = self.session.coloured(self.colour.currentText())
        self.scatter.recolour(coloured.colours)
        if coloured.span is None:
            # A line is not broken between a colour and what it means.
            named = [
                f'<span style="color:{colour}">■</span>&nbsp;{escape(text).replace(" ", "&nbsp;")}'
                for colour, text in coloured.groups[:_MOST_NAMED]
            ]
            more = len(coloured.groups) - len(named)
            self.legend.setText(" &nbsp; ".join([*named, *([f"and {more} more"] if more else [])]))
        else:
            low, high = coloured.span
            steps = value_colours(np.linspace(0, 1, 12)).tolist()
            ramp = "".join(f'<span style="color:rgb({r},{g},{b})">■</span>' for r, g, b in steps)
            self.legend.setText(f"{low:.4g} {ramp} {high:.4g}")

    def _write_set(self) -> None:
        chosen = self._chosen()
        if (out := self._ask_path(f"{chosen.name.replace(' ', '_')}.star")) is not None:
            self.status.setText(self.session.write_set(chosen, out))

    def _write_classes(self) -> None:
        items = [self.classes.item(row) for row in range(self.classes.count())]
        kept = [item.data(Qt.ItemDataRole.UserRole) for item in items if item.checkState() == Qt.CheckState.Checked]
        out = self._ask_path("kept.star") if kept else Path()
        if out is not None:
            self.status.setText(self.session.write_classes(kept, out))

    def _ask_path(self, name: str) -> Path | None:
        # What exists is refused by the verb, in words, so that Qt does not ask to overwrite it.
        options = QFileDialog.Option.DontConfirmOverwrite
        chosen, _ = QFileDialog.getSaveFileName(self, "Write", str(Path.cwd() / name), "STAR (*.star)", options=options)
        return Path(chosen) if chosen else None

    def _show_positions(self, tomogram: str) -> None:
        plane = self.viewer.dims.point
        for layer in [layer for layer in self.viewer.layers if layer.name.startswith("positions ")]:
            self.viewer.layers.remove(layer)
        if tomogram != _NO_TOMOGRAM:
            layer = position_layer(self.session.run, tomogram)
            self._show(layer)
            self.status.setText(f"{tomogram}: {layer[1]['metadata']['coordinates']}")
        self.viewer.dims.point = plane

    def _list_classes(self) -> None:
        self.classes.clear()
        names = current_names(self.session.run)
        for number in self.session.class_numbers:
            n_particles = int((self.session.classes == number).sum())
            item = QListWidgetItem(
                f"{' '.join(['class', str(number), names.get(number, '')]).rstrip()}\n{n_particles} particles"
            )
            item.setData(Qt.ItemDataRole.UserRole, number)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked)
            item.setIcon(self._picture(number))
            self.classes.addItem(item)

    def _picture(self, number: int) -> QIcon:
        pixmap = QPixmap(40, 40)
        if number in self.session.averaged:
            volume = read_volume(self.session.run.averages / f"class{number:03d}.mrc")
            pixmap.loadFromData(surface_png(volume, class_colour(number)))
        else:
            pixmap.fill(class_colour(number))
        return QIcon(pixmap)

    def _show(self, layer: LayerData) -> None:
        """Show a layer in the place of the one with its name; what the user set of it, as its visibility, stays."""
        data, how, kind = layer
        if kind == "image" and how["name"] in self.viewer.layers:
            shown = self.viewer.layers[how["name"]]
            shown.data, shown.translate, shown.contrast_limits = data, how["translate"], how["contrast_limits"]
            if "iso_threshold" in how:
                shown.iso_threshold = how["iso_threshold"]
            return
        self._remove(how["name"])
        add = self.viewer.add_image if kind == "image" else self.viewer.add_points
        added = add(data, **how)
        added.editable = False

    def _remove(self, name: str) -> None:
        if name in self.viewer.layers:
            self.viewer.layers.remove(name)

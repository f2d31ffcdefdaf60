// Scatters of the codes: coloured by any column, linked, with sets drawn by the mouse that can be downloaded.
"use strict";
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const SET_COLOURS = ["#d81b60", "#1e88e5", "#f9a825", "#00897b", "#8e24aa", "#6d4c41"];

async function drawPoints() {
  if (!document.getElementById("data-points")) return;
  const about = JSON.parse(await unpackText("data-points")), n = about.n;
  const bytes = id => unpack(document.getElementById("data-" + id));
  const labels = new Int16Array(await bytes("labels"));
  const sure = document.getElementById("data-confidence") && new Uint8Array(await bytes("confidence"));
  const origin = new Int32Array(await unpack({textContent: about.tomograms.which}));
  const rows = (await unpackText("data-rows")).split("\n");
  const cells = row => (rows[row].match(/"[^"]*"(?=\s|$)|'[^']*'(?=\s|$)|\S+/g) || []).map(cell => /^(".*"|'.*')$/.test(cell) ? cell.slice(1, -1) : cell);
  const nameOf = row => about.star ? cells(row)[about.name] : rows[row];
  const thumbAt = new Map(about.thumbs.rows.map((row, place) => [row, place]));
  const view = {x: 0.5, y: 0.5, scale: 1}, sets = [];
  let bins = new Uint8Array(n), palette = ["#888"];

  // What colours the points.
  const columns = {};
  if (about.classed) columns.class = () => byGroup(labels, about.colours.map((_, i) => i ? "class " + i : "unassigned"), about.colours);
  if (about.tomograms.names.length > 1) columns[about.origin] = () => byGroup(origin, about.tomograms.names);
  if (sure) columns.confidence = () => byNumber(i => sure[i] / 255);
  for (const column of about.columns) columns[column.label] = () => {
    const values = rows.map((_, row) => cells(row)[column.index]);
    if (column.numeric) return byNumber(i => Number(values[i]));
    const names = [...new Set(values)], at = new Map(names.map((name, i) => [name, i]));
    return byGroup(values.map(value => at.get(value)), names);
  };
  if (!Object.keys(columns).length) columns.nothing = () => byGroup(new Uint8Array(n), ["particles"]);
  const select = document.getElementById("colour"), legend = document.getElementById("legend");
  for (const name of Object.keys(columns)) select.add(new Option(name));

  function ramp(count) {
    return Array.from({length: count}, (_, i) => {
      const at = (count > 1 ? i / (count - 1) : 0) * (VIRIDIS.length - 1), low = Math.min(Math.floor(at), VIRIDIS.length - 2);
      const mix = [1, 3, 5].map(k => Math.round(parseInt(VIRIDIS[low].slice(k, k + 2), 16) * (low + 1 - at) + parseInt(VIRIDIS[low + 1].slice(k, k + 2), 16) * (at - low)));
      return `rgb(${mix})`;
    });
  }
  function entry(colour, text) {
    const item = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = colour;
    item.append(dot, text);
    legend.append(item);
  }
  function byGroup(which, names, colours) {
    palette = colours || (names.length <= 8 ? ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#882255", "#999933"] : ramp(Math.min(names.length, 250)));
    const counts = new Uint32Array(names.length);
    for (let i = 0; i < n; i++) { bins[i] = which[i] % palette.length; counts[which[i]]++; }
    names.slice(0, 60).forEach((name, i) => { if (counts[i]) entry(palette[i % palette.length], `${name} · ${counts[i].toLocaleString("en")}`); });
    if (names.length > 60) entry("transparent", `and ${names.length - 60} more`);
  }
  function byNumber(value) {
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < n; i++) { const v = value(i); if (v < low) low = v; if (v > high) high = v; }
    palette = ramp(200);
    for (let i = 0; i < n; i++) bins[i] = high > low ? Math.min(199, 200 * (value(i) - low) / (high - low)) : 0;
    const bar = document.createElement("i");
    bar.className = "ramp";
    bar.style.background = `linear-gradient(90deg, ${VIRIDIS})`;
    legend.append(Number(low.toPrecision(4)), bar, Number(high.toPrecision(4)));
  }
  function recolour() {
    legend.replaceChildren();
    columns[select.value]();
    order = null;
    drawAll();
  }

  // Drawing. Points of one colour are drawn together.
  let order = null;
  function sorted() {
    if (order) return order;
    const starts = new Uint32Array(257), filled = new Uint32Array(n);
    for (let i = 0; i < n; i++) starts[bins[i] + 1]++;
    for (let b = 0; b < 256; b++) starts[b + 1] += starts[b];
    const next = starts.slice();
    for (let i = 0; i < n; i++) filled[next[bins[i]]++] = i;
    return order = {starts, filled};
  }
  const panels = [];
  for (const figure of document.querySelectorAll(".scatter")) {
    const points = new Uint16Array(await bytes(figure.dataset.panel));
    panels.push({figure, points, canvas: figure.querySelector("canvas"), path: []});
  }
  function place(panel) {
    const {width, height} = panel.canvas, side = Math.min(width, height) * 0.94 * view.scale;
    const left = width / 2 - view.x * side, bottom = height / 2 + view.y * side;
    return {x: i => left + panel.points[2 * i] / 65535 * side, y: i => bottom - panel.points[2 * i + 1] / 65535 * side};
  }
  function draw(panel) {
    const {canvas} = panel, box = canvas.getBoundingClientRect(), ratio = Math.min(devicePixelRatio || 1, 2);
    if (!box.width) return;
    if (canvas.width !== Math.round(box.width * ratio)) canvas.width = Math.round(box.width * ratio);
    if (canvas.height !== Math.round(box.height * ratio)) canvas.height = Math.round(box.height * ratio);
    const paper = canvas.getContext("2d"), at = place(panel), {starts, filled} = sorted();
    const size = Math.max(1.5, Math.min(7, 9 - 1.6 * Math.log10(n))) * ratio * Math.min(2, Math.sqrt(view.scale)), half = size / 2;
    paper.clearRect(0, 0, canvas.width, canvas.height);
    paper.globalAlpha = sets.length ? 0.25 : 0.85;
    const dot = i => {
      const x = at.x(i), y = at.y(i);
      if (x < -size || y < -size || x > canvas.width + size || y > canvas.height + size) return;
      if (n > 5000) paper.fillRect(x - half, y - half, size, size);
      else { paper.beginPath(); paper.arc(x, y, half, 0, 7); paper.fill(); }
    };
    for (let b = 0; b < palette.length; b++) {
      paper.fillStyle = palette[b];
      for (let k = starts[b]; k < starts[b + 1]; k++) dot(filled[k]);
    }
    paper.globalAlpha = 1;
    for (const set of sets) {
      paper.fillStyle = set.colour;
      for (const i of set.rows) dot(i);
    }
    if (panel.path.length > 1) {
      paper.strokeStyle = style("--ink");
      paper.lineWidth = 1.5 * ratio;
      paper.beginPath();
      panel.path.forEach(([x, y]) => paper.lineTo(x, y));
      paper.stroke();
    }
  }
  const drawAll = () => panels.forEach(draw);

  // Sets.
  function inside(path, x, y) {
    let odd = false;
    for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
      const [ax, ay] = path[i], [bx, by] = path[j];
      if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  }
  function enclosed(panel) {
    const at = place(panel), found = [];
    for (let i = 0; i < n; i++) if (inside(panel.path, at.x(i), at.y(i))) found.push(i);
    return found;
  }
  let made = 0;
  function keep(found, event) {
    const last = sets[sets.length - 1];
    if (last && (event.shiftKey || event.altKey)) {
      const rest = new Set(last.rows);
      found.forEach(row => event.altKey ? rest.delete(row) : rest.add(row));
      last.rows = [...rest].sort((a, b) => a - b);
    } else if (found.length) {
      sets.push({name: "set" + ++made, rows: found, colour: SET_COLOURS[(made - 1) % SET_COLOURS.length]});
    }
    listSets();
  }
  function download(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/plain"}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function button(text, label, act) {
    const made = document.createElement("button");
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  }
  function listSets() {
    const list = document.getElementById("sets");
    list.replaceChildren(...sets.map(set => {
      const item = document.createElement("li"), name = document.createElement("input"), told = document.createElement("span");
      const counts = new Map();
      for (const row of set.rows) counts.set(labels[row], (counts.get(labels[row]) || 0) + 1);
      const parts = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 4).map(([label, count]) => `${label ? "class " + label : "unassigned"}: ${count.toLocaleString("en")}`);
      item.style.setProperty("--c", set.colour);
      name.value = set.name;
      name.setAttribute("aria-label", "Name of the set");
      name.addEventListener("input", () => { set.name = name.value; });
      told.textContent = `${set.rows.length.toLocaleString("en")} particles` + (about.classed && parts.length ? ` (${parts.join(", ")}${counts.size > 4 ? " …" : ""})` : "");
      item.append(name, told, button("List", "Download the names of " + set.name, () => download(file(set) + ".txt", set.rows.map(nameOf).join("\n") + "\n")));
      if (about.star) item.append(button("STAR", "Download a STAR of " + set.name, () => download(file(set) + ".star", about.star[0] + set.rows.map(row => rows[row] + "\n").join("") + about.star[1])));
      item.append(button("Remove", "Remove " + set.name, () => { sets.splice(sets.indexOf(set), 1); listSets(); }));
      return item;
    }));
    drawAll();
  }
  const file = set => set.name.replace(/[^\w.-]+/g, "_") || "set";

  // Hovering.
  const tip = document.getElementById("tip"), sheet = document.getElementById("thumbs");
  function nearest(panel, x, y, reach) {
    const at = place(panel);
    let best = -1, least = reach * reach;
    for (let i = 0; i < n; i++) {
      const dx = at.x(i) - x, dy = at.y(i) - y, far = dx * dx + dy * dy;
      if (far < least) { least = far; best = i; }
    }
    return best;
  }
  function tell(event, row) {
    tip.hidden = row < 0;
    if (row < 0) return;
    tip.replaceChildren();
    const {size, across, slices} = about.thumbs, k = thumbAt.get(row);
    if (k !== undefined && sheet) {
      const strip = document.createElement("div"), zoom = 80 / size;
      strip.className = "slices";
      for (let slice = 0; slice < slices; slice++) {
        const cell = document.createElement("i");
        cell.style.background = `url(${sheet.src}) ${-(k % across) * 80}px ${-(Math.floor(k / across) * slices + slice) * 80}px / ${sheet.naturalWidth * zoom}px auto`;
        strip.append(cell);
      }
      tip.append(strip);
    }
    const lines = [nameOf(row)];
    if (about.classed) lines.push((labels[row] ? "class " + labels[row] : "unassigned") + (sure ? ` · confidence ${(sure[row] / 255).toFixed(2)}` : ""));
    lines.push(about.tomograms.names[origin[row]]);
    const column = about.columns.find(one => one.label === select.value);
    if (column) lines.push(`${column.label}: ${cells(row)[column.index]}`);
    if (k === undefined && sheet) lines.push("no picture on this page");
    for (const line of lines) { const part = document.createElement("div"); part.textContent = line; tip.append(part); }
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = Math.max(4, event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18) + "px";
  }

  const finger = document.getElementById("finger");
  finger.addEventListener("click", () => {
    const on = finger.getAttribute("aria-pressed") !== "true";
    finger.setAttribute("aria-pressed", on);
    panels.forEach(panel => panel.figure.classList.toggle("drawing", on));
  });
  for (const panel of panels) {
    const {canvas} = panel;
    const spot = event => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
    };
    let drawing = false;
    canvas.addEventListener("pointerdown", event => {
      if (event.pointerType === "touch" && finger.getAttribute("aria-pressed") !== "true") return tell(event, nearest(panel, ...spot(event), 24));
      if (event.button) return;
      drawing = true;
      tip.hidden = true;
      canvas.setPointerCapture(event.pointerId);
      panel.path = [spot(event)];
    });
    canvas.addEventListener("pointermove", event => {
      if (!drawing) { if (event.pointerType !== "touch") tell(event, nearest(panel, ...spot(event), 12)); return; }
      panel.path.push(spot(event));
      // The outline grows over what is drawn; many points are not drawn anew with each move.
      const paper = canvas.getContext("2d"), [from, to] = panel.path.slice(-2);
      paper.strokeStyle = style("--ink");
      paper.lineWidth = 2;
      paper.beginPath();
      paper.moveTo(...from);
      paper.lineTo(...to);
      paper.stroke();
    });
    canvas.addEventListener("pointerup", event => {
      if (!drawing) return;
      drawing = false;
      const found = panel.path.length > 2 ? enclosed(panel) : [];
      panel.path = [];
      keep(found, event);
    });
    canvas.addEventListener("pointercancel", () => { drawing = false; panel.path = []; drawAll(); });
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("keydown", event => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
      if (!step) return;
      event.preventDefault();
      view.x += step[0] * 0.1 / view.scale;
      view.y += step[1] * 0.1 / view.scale;
      drawAll();
    });
    canvas.addEventListener("wheel", event => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300));
    }, {passive: false});
  }
  function zoom(by) { view.scale = Math.max(1, Math.min(60, view.scale * by)); drawAll(); }
  document.getElementById("closer").addEventListener("click", () => zoom(1.5));
  document.getElementById("farther").addEventListener("click", () => zoom(1 / 1.5));
  document.getElementById("whole").addEventListener("click", () => { Object.assign(view, {x: 0.5, y: 0.5, scale: 1}); drawAll(); });
  select.addEventListener("change", recolour);
  dark.addEventListener("change", drawAll);
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 80); });
  recolour();
}

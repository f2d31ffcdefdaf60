// What every part of the page uses: packed data, themed plots, links of one click.
"use strict";
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");

async function unpack(element) {
  const letters = atob(element.textContent.trim());
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
const unpackText = async id => new TextDecoder().decode(await unpack(document.getElementById(id)));

function themed(layout) {
  const axis = {automargin: true, gridcolor: style("--grid"), linecolor: style("--line"), zerolinecolor: style("--line")};
  const page = Object.assign({}, layout, {
    template: undefined, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {color: style("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: style("--soft"), activecolor: style("--ink")},
    hoverlabel: {bgcolor: style("--card"), bordercolor: style("--line"), font: {color: style("--ink")}},
    margin: Object.assign({l: 58, r: 10, t: 26, b: 48}, layout.margin || {}), autosize: true});
  for (const key of Object.keys(page)) if (/^[xy]axis/.test(key)) {
    const title = Object.assign({}, page[key].title, {font: {size: 13, color: style("--soft")}});
    page[key] = Object.assign({}, page[key], axis, {title});
  }
  return page;
}

function plot(element) {
  const figure = JSON.parse(document.getElementById(element.id.replace("plot-", "data-")).textContent);
  Plotly.react(element, figure.data, themed(figure.layout), {
    displaylogo: false, responsive: true, displayModeBar: element.dataset.bar || false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]});
}

async function drawPlots() {
  const plots = [...document.querySelectorAll(".plot")];
  if (!plots.length) return;
  const library = document.createElement("script");
  library.textContent = await unpackText("data-plotly");
  document.head.append(library);
  // A plot within a closed fold has no width: it is drawn when the fold is opened.
  for (const element of plots) {
    const fold = element.closest("details");
    if (fold && !fold.open) fold.addEventListener("toggle", () => plot(element), {once: true});
    else plot(element);
  }
  dark.addEventListener("change", () => plots.filter(element => element.data).forEach(plot));
}
addEventListener("DOMContentLoaded", async () => {
  if (typeof DecompressionStream === "undefined") {
    document.querySelectorAll(".plot, .scatter").forEach(element => element.textContent = "This browser is too old to draw here.");
    return;
  }
  drawSurfaces();
  await drawPoints();
  await drawPlots();
  performance.mark("drawn");
  document.documentElement.dataset.drawn = "yes";
});

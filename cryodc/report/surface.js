// Surfaces that are turned by hand: rays through a small volume, all drawn by one WebGL context.
"use strict";
const SHADER = `#version 300 es
precision highp float; precision highp sampler3D;
uniform sampler3D voxels; uniform mat3 turn; uniform float level; uniform vec3 colour;
in vec2 at; out vec4 pixel;
float grey(vec3 p) { return all(lessThan(abs(p), vec3(0.5))) ? texture(voxels, p + 0.5).r : 0.0; }
void main() {
  // turn takes the frame of the picture (x right, y up, z to the eye) to that of the volume.
  vec3 p = turn * vec3(at * 0.72, 0.87), ahead = turn * vec3(0, 0, -1.74 / 150.0);
  pixel = vec4(0);
  for (int i = 0; i < 150; i++) {
    p += ahead;
    if (grey(p) < level) continue;
    vec3 out_ = p - ahead, in_ = p;
    for (int j = 0; j < 5; j++) { vec3 m = 0.5 * (out_ + in_); if (grey(m) < level) out_ = m; else in_ = m; }
    float h = 0.018;
    vec3 slope = vec3(grey(in_ + vec3(h,0,0)) - grey(in_ - vec3(h,0,0)),
      grey(in_ + vec3(0,h,0)) - grey(in_ - vec3(0,h,0)), grey(in_ + vec3(0,0,h)) - grey(in_ - vec3(0,0,h)));
    vec3 n = normalize(-slope * turn + 1e-9), light = normalize(vec3(-0.45, 0.48, 0.75));
    float near = (in_ * turn).z + 0.5, shine = pow(max(dot(n, light), 0.0), 24.0);
    pixel = vec4(colour * (0.32 + 0.78 * max(dot(n, light), 0.0)) * (0.6 + 0.5 * near) + 0.3 * shine, 1);
    return;
  }
}`;

function surfaceRenderer() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 300;
  const gl = canvas.getContext("webgl2", {premultipliedAlpha: true, preserveDrawingBuffer: true});
  if (!gl) return null;
  const program = gl.createProgram();
  const corner = `#version 300 es
    out vec2 at; void main() { at = vec2(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1); gl_Position = vec4(at, 0, 1); }`;
  for (const [kind, text] of [[gl.VERTEX_SHADER, corner], [gl.FRAGMENT_SHADER, SHADER]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  const place = name => gl.getUniformLocation(program, name);
  return {
    texture(bytes, edge) {
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_3D, texture);
      gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, edge, edge, edge, 0, gl.RED, gl.UNSIGNED_BYTE, bytes);
      for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_3D, name, gl.LINEAR);
      for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(gl.TEXTURE_3D, name, gl.CLAMP_TO_EDGE);
      return texture;
    },
    draw(target, texture, turn, level, colour) {
      gl.bindTexture(gl.TEXTURE_3D, texture);
      gl.uniformMatrix3fv(place("turn"), false, turn);
      gl.uniform1f(place("level"), level);
      gl.uniform3fv(place("colour"), colour);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
      const paper = target.getContext("2d");
      paper.clearRect(0, 0, target.width, target.height);
      paper.drawImage(canvas, 0, 0, target.width, target.height);
    }};
}

// 3×3 matrices in columns, as WebGL takes them.
function times(a, b) {
  return [0, 1, 2].flatMap(c => [0, 1, 2].map(r => [0, 1, 2].reduce((sum, k) => sum + a[3 * k + r] * b[3 * c + k], 0)));
}
function turned(turn, right, up) {
  const [c, s, d, t] = [Math.cos(right), Math.sin(right), Math.cos(up), Math.sin(up)];
  return times(times(turn, [c, 0, s, 0, 1, 0, -s, 0, c]), [1, 0, 0, 0, d, -t, 0, t, d]);
}

function drawSurfaces() {
  const renderer = surfaceRenderer();
  if (!renderer) return;
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      surface(renderer, entry.target);
    }
  }, {rootMargin: "300px"});
  document.querySelectorAll(".turned").forEach(element => seen.observe(element));
}

async function surface(renderer, element) {
  const edge = Number(element.dataset.edge), bytes = new Uint8Array(await unpack(element.querySelector("script")));
  const size = edge ** 3, textures = [];
  for (let at = 0; at < bytes.length; at += size) textures.push(renderer.texture(bytes.subarray(at, at + size), edge));
  const canvas = element.querySelector("canvas"), frames = element.querySelector(".frames"), level = element.querySelector(".level");
  const colour = [1, 3, 5].map(at => parseInt(element.dataset.colour.slice(at, at + 2), 16) / 255);
  let turn = [1, 0, 0, 0, 1, 0, 0, 0, 1], asked = false;
  const draw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      const frame = frames ? Number(frames.value) : 0;
      if (frames) element.querySelector(".frame").textContent = frames.dataset.names.split("|")[frame];
      renderer.draw(canvas, textures[frame], turn, Number(level.value), colour);
      element.classList.add("live");
    });
  };
  const move = (x, y) => { turn = turned(turn, x, y); draw(); };
  canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => { if (event.buttons) move(event.movementX / 110, event.movementY / 110); });
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2]}[event.key];
    if (step) { event.preventDefault(); move(...step); }
  });
  for (const input of [frames, level]) if (input) input.addEventListener("input", draw);
  draw();
}

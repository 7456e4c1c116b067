// One picture: a layer of the mosaic (or the residuals along the path), coloured, zoomed and drawn upon.

import { table } from "./colours.js";
import { lengthInWords } from "./data.js";

const MAPS = { amplitude: "gray", phase: "cividis", residual: "magma", coverage: "viridis" };
const UNITS = { amplitude: "", phase: " rad", residual: "", coverage: "" };

const LIT = 0.1; // of the largest coverage: what is lit less fades, for it is guesswork

const wrap = (angle) => angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));

/** What all views share: where they look, in object pixels, and how many screen pixels one of them takes. */
export class Camera {
  constructor() {
    this.following = true; // the whole object, however it grows
    [this.y, this.x, this.zoom] = [0, 0, 1];
  }

  fit([top, left, bottom, right], width, height) {
    [this.y, this.x] = [(top + bottom) / 2, (left + right) / 2];
    this.zoom = 0.94 * Math.min(width / (right - left), height / (bottom - top));
  }

  zoomAbout(factor, y, x) {
    const zoom = Math.min(Math.max(this.zoom * factor, 0.02), 64);
    this.y = y + ((this.y - y) * this.zoom) / zoom;
    this.x = x + ((this.x - x) * this.zoom) / zoom;
    this.zoom = zoom;
    this.following = false;
  }
}

export class View {
  constructor(layer, data, camera, options) {
    Object.assign(this, { layer, data, camera, options, map: MAPS[layer], auto: true, low: 0, high: 1, range: [0, 1] });
    this.element = document.createElement("div");
    this.element.className = "view";
    this.element.dataset.layer = layer;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${layer} of the object`);
    const title = document.createElement("h2");
    title.textContent = layer;
    this.reading = document.createElement("span");
    this.reading.className = "reading";
    this.element.append(this.canvas, title, this.reading);
    this.clear();
  }

  clear() {
    this.sheet = document.createElement("canvas"); // one pixel for each of the object's
    [this.sheet.width, this.sheet.height] = [1, 1];
    this.origin = [0, 0];
    this.reach = null;
    this.drawn = 0; // points of the path painted
    this.stale = true;
  }

  /** The values of a tile as this view shows them. */
  values(tile) {
    if (this.layer !== "phase") return tile[this.layer];
    const mean = this.options.meanPhase;
    if (this.options.unwrap && tile.unwrapped) return tile.unwrapped.map((value) => value - this.options.unwrappedMean);
    return tile.phase.map((value) => wrap(value - mean));
  }

  value(y, x) {
    if (this.layer === "residual") return this.nearestResidual(y, x);
    const value = this.data.at(this.options.unwrap && this.layer === "phase" ? "unwrapped" : this.layer, y, x);
    if (this.layer !== "phase") return value;
    return this.options.unwrap ? value - this.options.unwrappedMean : wrap(value - this.options.meanPhase);
  }

  nearestResidual(y, x) {
    const { path } = this.data;
    let [best, found] = [(2 * this.options.step) ** 2, NaN];
    for (let index = 0; index < path.length; index += 3) {
      const squared = (path[index] - y) ** 2 + (path[index + 1] - x) ** 2;
      if (squared < best) [best, found] = [squared, path[index + 2]];
    }
    return found;
  }

  /** Limits that leave out the outermost 0.5 % of the lit values. */
  measure() {
    const sample = [];
    if (this.layer === "residual") {
      for (let index = 2; index < this.data.path.length; index += 3) {
        if (!Number.isNaN(this.data.path[index])) sample.push(this.data.path[index]);
      }
    } else {
      const least = this.layer === "coverage" ? 0 : LIT * this.options.mostCoverage;
      for (const tile of this.data.tiles.values()) {
        const values = this.values(tile);
        for (let index = 0; index < values.length; index += 7) {
          if (tile.coverage[index] > least) sample.push(values[index]);
        }
      }
    }
    if (!sample.length) return;
    const sorted = Float32Array.from(sample).sort();
    const [first, last] = [sorted[0], sorted.at(-1)];
    const [low, high] = [sorted[Math.floor(0.005 * (sorted.length - 1))], sorted[Math.ceil(0.995 * (sorted.length - 1))]];
    this.range = last > first ? [first, last] : [first - 0.5, last + 0.5];
    if (!this.auto) return;
    const span = high - low || 1;
    if (Math.abs(low - this.low) + Math.abs(high - this.high) < 0.02 * span) return;
    [this.low, this.high] = high > low ? [low, high] : this.range;
    this.stale = true;
  }

  /** Paint what changed (`tiles`), or everything if the colours did. */
  paint(tiles) {
    const { bounds } = this.data;
    if (!bounds) return;
    const reach = bounds.join();
    if (reach !== this.reach) {
      this.sheet.width = bounds[3] - bounds[1];
      this.sheet.height = bounds[2] - bounds[0];
      this.origin = [bounds[0], bounds[1]];
      this.reach = reach;
      this.stale = true;
    }
    if (this.layer === "residual") this.paintPoints();
    else for (const tile of this.stale ? this.data.tiles.values() : tiles) this.paintTile(tile);
    this.stale = false;
  }

  colour(value) {
    return Math.min(255, Math.max(0, Math.round(((value - this.low) / (this.high - this.low)) * 255)));
  }

  paintTile(tile) {
    const { size } = this.data;
    const image = new ImageData(size, size);
    const [pixels, values, colours] = [new Uint32Array(image.data.buffer), this.values(tile), table(this.map)];
    const fade = this.layer === "coverage" ? Infinity : 255 / (LIT * this.options.mostCoverage);
    for (let index = 0; index < pixels.length; index++) {
      if (!(tile.coverage[index] > 0)) continue;
      const opacity = Math.min(255, Math.round(fade * tile.coverage[index]));
      pixels[index] = (opacity << 24) | (colours[this.colour(values[index])] & 0xffffff);
    }
    const context = this.sheet.getContext("2d");
    context.putImageData(image, tile.column * size - this.origin[1], tile.row * size - this.origin[0]);
  }

  paintPoints() {
    const context = this.sheet.getContext("2d");
    const [{ path }, colours, side] = [this.data, table(this.map), Math.max(2, Math.ceil(this.options.step))];
    if (this.stale || side !== this.side) {
      context.clearRect(0, 0, this.sheet.width, this.sheet.height);
      this.drawn = 0;
      this.side = side;
    }
    for (; this.drawn < path.length; this.drawn += 3) {
      const [y, x, residual] = path.slice(this.drawn, this.drawn + 3);
      if (Number.isNaN(residual)) continue;
      const packed = colours[this.colour(residual)];
      context.fillStyle = `rgb(${packed & 255},${(packed >> 8) & 255},${(packed >> 16) & 255})`;
      context.fillRect(Math.round(x - this.origin[1] - side / 2), Math.round(y - this.origin[0] - side / 2), side, side);
    }
  }

  /** Screen pixel of the canvas to object pixel, and back. */
  toObject(px, py) {
    const { y, x, zoom } = this.camera;
    return [y + (py - this.canvas.clientHeight / 2) / zoom, x + (px - this.canvas.clientWidth / 2) / zoom];
  }

  toScreen(y, x) {
    const { camera } = this;
    return [
      (x - camera.x) * camera.zoom + this.canvas.clientWidth / 2,
      (y - camera.y) * camera.zoom + this.canvas.clientHeight / 2,
    ];
  }

  draw() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!width || !height) return;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.data.bounds) return;
    const { zoom } = this.camera;
    const [left, top] = this.toScreen(this.origin[0], this.origin[1]);
    context.imageSmoothingEnabled = zoom < 2;
    context.drawImage(this.sheet, left, top, this.sheet.width * zoom, this.sheet.height * zoom);
    if (this.options.path) this.drawPath(context);
    if (this.options.line) this.drawLine(context);
    this.drawScaleBar(context, height);
  }

  drawPath(context) {
    const { path } = this.data;
    context.beginPath();
    for (let index = 0; index < path.length; index += 3) {
      const [px, py] = this.toScreen(path[index] + 0.5, path[index + 1] + 0.5);
      context.rect(px - 1, py - 1, 2, 2);
    }
    context.fillStyle = "rgba(127, 182, 217, 0.75)";
    context.fill();
    if (!path.length) return;
    const [px, py] = this.toScreen(path.at(-3) + 0.5, path.at(-2) + 0.5);
    context.beginPath();
    context.arc(px, py, 6, 0, 7);
    context.strokeStyle = "#e8b04a";
    context.lineWidth = 2;
    context.stroke();
  }

  drawLine(context) {
    const [from, to] = this.options.line;
    const [x0, y0] = this.toScreen(...from);
    const [x1, y1] = this.toScreen(...to);
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.lineWidth = 2;
    context.strokeStyle = "#e8b04a";
    context.stroke();
  }

  drawScaleBar(context, height) {
    const { pixelSize } = this.options;
    const unit = pixelSize ? pixelSize * 1e9 : 1; // nanometres, or pixels
    const most = (100 / this.camera.zoom) * unit;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = power * (most / power >= 5 ? 5 : most / power >= 2 ? 2 : 1);
    const pixels = (length / unit) * this.camera.zoom;
    context.fillStyle = "rgba(0, 0, 0, 0.55)";
    context.fillRect(8, height - 30, pixels + 12, 24);
    context.fillStyle = "#fff";
    context.fillRect(14, height - 12, pixels, 2);
    context.font = "12px system-ui, sans-serif";
    context.fillText(lengthInWords(length / unit, pixelSize), 14, height - 17);
  }

  read(y, x) {
    const value = this.value(y, x);
    this.reading.textContent = Number.isNaN(value) ? "" : `${value.toFixed(3)}${UNITS[this.layer]}`;
  }
}

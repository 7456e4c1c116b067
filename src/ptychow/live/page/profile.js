// Values along a line, and their picture.

/** Samples of a view's layer from (y, x) to (y, x), one per object pixel of length: [distances in pixels, values]. */
export function sample(view, [from, to]) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  const count = Math.max(2, Math.min(2000, Math.round(length) + 1));
  const parts = Array.from({ length: count }, (_, index) => index / (count - 1));
  const values = parts.map((part) => view.value(from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1])));
  return [parts.map((part) => part * length), values];
}

export function plot(canvas, distances, values, pixelSize) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const known = values.filter((value) => !Number.isNaN(value));
  if (!known.length) return;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const span = high - low || 1;
  const [left, right, top, bottom] = [40, width - 8, 8, height - 18];
  const length = distances.at(-1) || 1;
  const toX = (distance) => left + (distance / length) * (right - left);
  const toY = (value) => bottom - ((value - low) / span) * (bottom - top);
  context.strokeStyle = "#262e36";
  context.strokeRect(left, top, right - left, bottom - top);
  context.fillStyle = "#8b98a5";
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  context.fillText(high.toFixed(2), left - 4, top + 8);
  context.fillText(low.toFixed(2), left - 4, bottom);
  const metres = pixelSize ? length * pixelSize : 0;
  const unit = !pixelSize ? "px" : metres >= 1e-6 ? "µm" : "nm";
  const shown = !pixelSize ? length : metres * (unit === "µm" ? 1e6 : 1e9);
  context.fillText(`${shown.toPrecision(3)} ${unit}`, right, height - 5);
  context.textAlign = "left";
  context.fillText("0", left, height - 5);
  context.beginPath();
  let drawing = false;
  values.forEach((value, index) => {
    const known = !Number.isNaN(value);
    if (known) context[drawing ? "lineTo" : "moveTo"](toX(distances[index]), toY(value));
    drawing = known;
  });
  context.strokeStyle = "#e8b04a";
  context.lineWidth = 1.5;
  context.stroke();
}

// Phase unwrapping: flood from the best lit pixel outwards, well lit and smooth places first.

const LEVELS = 64;

/** Add to every tile `unwrapped`: its phase plus the multiples of 2 pi that make neighbours agree. */
export function unwrap(data) {
  if (!data.bounds) return;
  const [top, left, bottom, right] = data.bounds;
  const [height, width, size] = [bottom - top, right - left, data.size];
  const phase = new Float32Array(height * width).fill(NaN);
  const light = new Float32Array(height * width);
  let brightest = 0;
  for (const tile of data.tiles.values()) {
    const corner = (tile.row * size - top) * width + tile.column * size - left;
    for (let index = 0; index < size * size; index++) {
      if (!(tile.coverage[index] > 0)) continue;
      const place = corner + Math.floor(index / size) * width + (index % size);
      phase[place] = tile.phase[index];
      light[place] = tile.amplitude[index] * tile.coverage[index];
      if (light[place] > light[brightest]) brightest = place;
    }
  }
  const found = new Float32Array(height * width).fill(NaN);
  const queues = Array.from({ length: LEVELS }, () => []);
  const most = light[brightest] || 1;
  const offer = (from, place) => {
    if (!Number.isNaN(found[place]) || Number.isNaN(phase[place])) return;
    const jump = phase[place] - found[from];
    const value = phase[place] - 2 * Math.PI * Math.round(jump / (2 * Math.PI));
    const smooth = 1 - Math.abs(value - found[from]) / Math.PI;
    const quality = Math.sqrt(light[place] / most) * smooth;
    queues[Math.min(LEVELS - 1, Math.floor(quality * LEVELS))].push(place, value);
  };
  const spread = (place) => {
    const column = place % width;
    if (column > 0) offer(place, place - 1);
    if (column < width - 1) offer(place, place + 1);
    if (place >= width) offer(place, place - width);
    if (place < width * (height - 1)) offer(place, place + width);
  };
  found[brightest] = phase[brightest];
  spread(brightest);
  for (let level = LEVELS - 1; level >= 0; ) {
    const value = queues[level].pop();
    if (value === undefined) {
      level -= 1;
      continue;
    }
    const place = queues[level].pop();
    if (!Number.isNaN(found[place])) continue;
    found[place] = value;
    spread(place);
    level = LEVELS - 1;
  }
  for (const tile of data.tiles.values()) {
    const corner = (tile.row * size - top) * width + tile.column * size - left;
    tile.unwrapped = tile.phase.map((value, index) => {
      const better = found[corner + Math.floor(index / size) * width + (index % size)];
      return Number.isNaN(better) ? value : better;
    });
  }
}

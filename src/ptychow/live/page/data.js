// The scan as this browser knows it: tiles of the mosaic, the path, the newest pattern, and how things are.

// States after which nothing more comes, and what is said when the server goes too.
const ENDS = ["done", "failed"];
const GONE = "ptychow has ended";

export class LiveData {
  constructor() {
    this.listeners = [];
    this.clear(undefined);
    this.state = { state: "connecting", message: "" };
  }

  clear(picture) {
    this.picture = picture;
    this.tiles = new Map(); // "row,column" -> { row, column, amplitude, phase, coverage }
    this.size = 64;
    this.bounds = null; // [top, left, bottom, right] in object pixels
    this.pathBounds = [Infinity, Infinity, -Infinity, -Infinity];
    this.path = []; // flat: y, x, residual, y, x, residual ...
    this.pattern = null;
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  tell(what, detail) {
    for (const listener of this.listeners) listener(what, detail);
  }

  /** Connect for as long as the page lives; `disconnected` is a state like the others. */
  connect(wait = 500) {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
    socket.binaryType = "arraybuffer";
    let turn = Promise.resolve(); // messages are unpacked in the order in which they came
    let alive = false;
    socket.onmessage = ({ data }) => {
      if (!alive) this.clear(undefined); // the server starts over with a new connection
      alive = true;
      turn = turn
        .then(() => (typeof data === "string" ? this.takeState(JSON.parse(data)) : this.takeBinary(data)))
        .catch((error) => this.complain(error)); // one bad message must not be the last
    };
    socket.onclose = () => {
      const ended = ENDS.includes(this.state.state);
      const message = ended ? `${this.state.message ? `${this.state.message}; ` : ""}${GONE}` : "no connection to ptychow: trying again";
      if (!this.state.message.endsWith(GONE)) this.state = { ...this.state, message };
      if (!ended) this.state.state = "disconnected";
      this.tell("state");
      setTimeout(() => this.connect(Math.min(wait * 1.5, 5000)), alive ? 500 : wait);
    };
  }

  /** Say what cannot be shown; what comes after it is taken in. */
  complain(error) {
    const missing = typeof DecompressionStream === "undefined";
    const message = missing ? "this browser is too old to show the object (no DecompressionStream)" : `not shown: ${error.message}`;
    console.error(error);
    this.state = { ...this.state, message };
    this.tell("state");
  }

  takeState(state) {
    if (state.picture !== this.picture) {
      this.clear(state.picture);
      this.tell("cleared");
    }
    this.state = state;
    this.tell("state");
  }

  async takeBinary(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const stream = new Blob([new Uint8Array(buffer, 4 + length)]).stream();
    const body = await new Response(stream.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
    if (header.kind === "tiles") this.takeTiles(header, body);
    if (header.kind === "path") {
      for (const value of new Float32Array(body)) this.path.push(value);
      for (let index = this.path.length - 3 * header.points; index < this.path.length; index += 3) {
        const [y, x, old] = [this.path[index], this.path[index + 1], this.pathBounds];
        this.pathBounds = [Math.min(old[0], y), Math.min(old[1], x), Math.max(old[2], y), Math.max(old[3], x)];
      }
      this.tell("path");
    }
    if (header.kind === "pattern") {
      this.pattern = { ...header, values: new Uint8Array(body) };
      this.tell("pattern");
    }
  }

  takeTiles({ size, places, amplitude_step: step }, body) {
    const pixels = size * size;
    this.size = size;
    const changed = places.map(([row, column], index) => {
      const plane = (number, Kind) => new Kind(body, 2 * pixels * (3 * index + number), pixels);
      const tile = {
        row,
        column,
        amplitude: Float32Array.from(plane(0, Uint16Array), (value) => value * step),
        phase: Float32Array.from(plane(1, Int16Array), (value) => (value * Math.PI) / 32767),
        coverage: Float32Array.from(plane(2, Uint16Array), (value) => value / 100),
        // Until it is unwrapped anew, the phase of before is nearer than a wrapped one.
        unwrapped: this.tiles.get(`${row},${column}`)?.unwrapped,
      };
      this.tiles.set(`${row},${column}`, tile);
      const [top, left] = [row * size, column * size];
      const old = this.bounds ?? [top, left, top, left];
      this.bounds = [
        Math.min(old[0], top),
        Math.min(old[1], left),
        Math.max(old[2], top + size),
        Math.max(old[3], left + size),
      ];
      return tile;
    });
    this.tell("tiles", changed);
  }

  /** A layer's value at object pixel (y, x), NaN where nothing is. */
  at(layer, y, x) {
    const [row, column] = [Math.floor(y / this.size), Math.floor(x / this.size)];
    const tile = this.tiles.get(`${row},${column}`);
    if (!tile) return NaN;
    const index = (Math.floor(y) - row * this.size) * this.size + Math.floor(x) - column * this.size;
    return tile.coverage[index] > 0 && tile[layer] ? tile[layer][index] : NaN;
  }

  /** What the frames' middles light, in object pixels: the path, and a third of a patch about it. */
  litBounds(patchSize) {
    if (this.path.length < 3) return this.bounds;
    const margin = patchSize / 3;
    const [top, left, bottom, right] = this.pathBounds;
    return [top - margin, left - margin, bottom + margin, right + margin];
  }

  mostCoverage() {
    let most = 0;
    for (const { coverage } of this.tiles.values()) for (const value of coverage) most = Math.max(most, value);
    return most;
  }

  /** Direction of the mean of the object, weighted by coverage: phases are shown about it. */
  meanPhase() {
    let [real, imaginary] = [0, 0];
    for (const { amplitude, phase, coverage } of this.tiles.values()) {
      for (let index = 0; index < phase.length; index += 5) {
        const weight = amplitude[index] * coverage[index];
        real += weight * Math.cos(phase[index]);
        imaginary += weight * Math.sin(phase[index]);
      }
    }
    return Math.atan2(imaginary, real);
  }
}

/** A length in object pixels, in words: micrometres or nanometres where the pixel size (metres) is known. */
export function lengthInWords(pixels, pixelSize) {
  if (!pixelSize) return `${pixels.toFixed(pixels < 10 ? 1 : 0)} px`;
  const metres = pixels * pixelSize;
  return metres >= 1e-6 ? `${(metres * 1e6).toPrecision(3)} µm` : `${(metres * 1e9).toPrecision(3)} nm`;
}

// The page: what comes in goes to the views and the figures; what people do goes to the views.

import { gradient, NAMES } from "./colours.js";
import { LiveData, lengthInWords } from "./data.js";
import { plot, sample } from "./profile.js";
import { unwrap } from "./unwrap.js";
import { Camera, View } from "./view.js";

const $ = (id) => document.getElementById(id);
const LAYERS = ["amplitude", "phase", "residual", "coverage"];
const LIGHTS = { green: "as in training", amber: "unlike training", red: "do not trust", unknown: "not calibrated" };
const STATES = {
  connecting: "connecting", waiting: "waiting", scanning: "scanning", silent: "silent", finishing: "finishing",
  unsaved: "not saved yet", done: "done", failed: "failed", disconnected: "disconnected",
};
const COUNTS = [
  "expected", "received", "corrupt", "duplicate", "skipped", "queued", "decoded", "dark", "inferred", "joined", "waiting",
  "refused", "stitched", "lost", "overruns",
];
const WORRYING = ["corrupt", "skipped", "refused", "lost", "overruns"];

const data = new LiveData();
const camera = new Camera();
const options = { meanPhase: 0, mostCoverage: 0, unwrappedMean: 0, unwrap: false, path: false, line: null, pixelSize: null, step: 4 };
const views = Object.fromEntries(LAYERS.map((layer) => [layer, new View(layer, data, camera, options)]));
let shown = window.matchMedia("(max-width: 60rem)").matches ? "phase" : "all";
let chosen = views.phase;
let drawing = false;
let waiting = []; // tiles to paint with the next frame
let scheduled = false;

// --- drawing, at most once a frame of the screen; limits and unwrapping at most once a second ------------------------

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    const visible = LAYERS.map((layer) => views[layer]).filter((view) => view.element.isConnected);
    for (const layer of LAYERS) views[layer].paint(waiting);
    waiting = [];
    if (camera.following && data.bounds) {
      camera.fit(data.litBounds(data.state.patch_size ?? 0), visible[0].canvas.clientWidth, visible[0].canvas.clientHeight);
    }
    for (const view of visible) view.draw();
    if (options.line) showProfile();
  });
}

let measured = 0;
let outdated = false;
function measure(now = false) {
  if (!now && (!outdated || performance.now() - measured < 1000)) return;
  measured = performance.now();
  outdated = false;
  options.meanPhase = data.meanPhase();
  views.phase.stale = true;
  const most = data.mostCoverage();
  if (most > 1.1 * options.mostCoverage || most < options.mostCoverage) {
    options.mostCoverage = most;
    for (const layer of LAYERS) views[layer].stale = true;
  }
  if (options.unwrap) {
    unwrap(data);
    options.unwrappedMean = meanOfUnwrapped();
  }
  if (data.bounds && data.path.length > 3) {
    const [top, left, bottom, right] = data.bounds;
    options.step = Math.min(32, Math.max(2, Math.sqrt(((bottom - top) * (right - left)) / (data.path.length / 3)) * 0.7));
  }
  for (const layer of LAYERS) views[layer].measure();
  showControls();
}

function meanOfUnwrapped() {
  let [sum, weights] = [0, 0];
  for (const { unwrapped, coverage } of data.tiles.values()) {
    for (let index = 0; index < coverage.length; index += 5) {
      sum += unwrapped[index] * coverage[index];
      weights += coverage[index];
    }
  }
  return weights ? sum / weights : 0;
}

data.listen((what, detail) => {
  if (what === "state") showState();
  if (what === "pattern") showPattern();
  if (what === "cleared") {
    for (const layer of LAYERS) views[layer].clear();
    waiting = [];
    camera.following = true;
  }
  if (what === "tiles") waiting.push(...detail);
  if (what === "tiles" || what === "path") outdated = true;
  measure(); // "state" comes several times a second
  schedule();
});

// --- figures -----------------------------------------------------------------------------------------------------------

const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));

function showState() {
  const { state, message, name, counts, rates, lag, light, reasons, warnings, preview, latency } = data.state;
  $("state").dataset.state = state;
  $("state").textContent = STATES[state] + (preview && state !== "disconnected" ? " · preview" : "");
  $("message").textContent = message || (data.state.skipping ? "the machine is too slow: frames are being skipped" : "");
  if (name) $("name").textContent = name;
  document.title = `${STATES[state]} · ${name ?? "PtychoW"}`;
  if (!counts) return;
  options.pixelSize = data.state.pixel_size;
  $("light").dataset.light = light;
  $("light-word").textContent = LIGHTS[light];
  $("reasons").hidden = !reasons.length || light === "green";
  $("reasons").textContent = reasons.join(" · ");
  $("stitched").textContent = number(counts.stitched);
  $("of").textContent = counts.expected ? `of ${number(counts.expected)}` : "";
  $("progress").value = counts.expected ? counts.stitched / counts.expected : 0;
  $("rate-in").textContent = number(Math.round(rates.received));
  $("rate-out").textContent = number(Math.round(rates.stitched));
  $("lag").textContent = lag.toFixed(1);
  $("left").textContent = state === "done" ? "0 s" : inWords(data.state.seconds_left);
  $("lost").textContent = number(counts.lost ?? 0);
  $("lost-figure").dataset.some = counts.lost > 0 && (state === "done" || state === "failed");
  $("counts").replaceChildren(
    ...COUNTS.map((key) => row(key, number(counts[key]), WORRYING.includes(key) && counts[key] > 0)),
    row("on disk", number(data.state.on_disk)),
    row("to the mosaic, p50 / p99", latency.p50 === null ? "–" : `${ms(latency.p50)} / ${ms(latency.p99)}`),
  );
  $("warnings").replaceChildren(...warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

const ms = (seconds) => `${Math.round(seconds * 1000)} ms`;

function inWords(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function row(name, value, bad = false) {
  const line = document.createElement("tr");
  line.className = bad ? "bad" : "";
  for (const text of [name, value]) line.append(Object.assign(document.createElement("td"), { textContent: text }));
  return line;
}

function showPattern() {
  const { shape, values, counts } = data.pattern;
  const canvas = $("pattern");
  [canvas.height, canvas.width] = shape;
  const image = new ImageData(shape[1], shape[0]);
  values.forEach((value, index) => image.data.set([value, value, value, 255], 4 * index));
  canvas.getContext("2d").putImageData(image, 0, 0);
  $("pattern-of").textContent = `${number(Math.round(counts))} counts, fourth root`;
}

function showProfile() {
  const [distances, values] = sample(chosen, options.line);
  $("profile-figure").hidden = false;
  $("profile-of").textContent = `${chosen.layer}, ${lengthInWords(distances.at(-1), options.pixelSize)}`;
  plot($("profile"), distances, values, options.pixelSize);
}

// --- controls ----------------------------------------------------------------------------------------------------------

function show(what) {
  shown = what;
  if (what !== "all") chosen = views[what];
  $("views").className = what === "all" ? "all" : "one";
  $("views").replaceChildren(...(what === "all" ? LAYERS : [what]).map((layer) => views[layer].element));
  for (const tab of $("layers").children) tab.setAttribute("aria-selected", tab.dataset.show === what);
  showControls();
  schedule();
}

function choose(view) {
  chosen = view;
  showControls();
  schedule();
}

function showControls() {
  for (const layer of LAYERS) views[layer].element.classList.toggle("chosen", shown === "all" && views[layer] === chosen);
  const [first, last] = [Math.min(chosen.range[0], chosen.low), Math.max(chosen.range[1], chosen.high)];
  $("controls-of").textContent = chosen.layer;
  $("colours").value = chosen.map;
  $("gradient").style.background = gradient(chosen.map);
  $("low-shown").textContent = chosen.low.toPrecision(3);
  $("high-shown").textContent = chosen.high.toPrecision(3);
  $("auto").checked = chosen.auto;
  for (const [id, value] of [["low", chosen.low], ["high", chosen.high]]) {
    [$(id).min, $(id).max, $(id).step] = [first, last, (last - first) / 500 || 0.002];
    $(id).value = value;
  }
}

function setLimit(which, value) {
  chosen.auto = false;
  chosen[which] = value;
  const least = (chosen.range[1] - chosen.range[0]) / 500;
  if (which === "low") chosen.high = Math.max(chosen.high, value + least);
  else chosen.low = Math.min(chosen.low, value - least);
  chosen.stale = true;
  showControls();
  schedule();
}

$("colours").append(...NAMES.map((name) => new Option(name, name)));
$("colours").onchange = (event) => {
  chosen.map = event.target.value;
  chosen.stale = true;
  choose(chosen);
};
$("low").oninput = (event) => setLimit("low", Number(event.target.value));
$("high").oninput = (event) => setLimit("high", Number(event.target.value));
$("auto").onchange = (event) => {
  chosen.auto = event.target.checked;
  measure(true);
  schedule();
};
$("unwrap").onchange = (event) => {
  options.unwrap = event.target.checked;
  measure(true);
  schedule();
};
$("path").onchange = (event) => {
  options.path = event.target.checked;
  schedule();
};
$("fit").onclick = () => {
  camera.following = true;
  schedule();
};
for (const [id, factor] of [["in", 1.5], ["out", 1 / 1.5]]) {
  $(id).onclick = () => {
    camera.zoomAbout(factor, camera.y, camera.x);
    schedule();
  };
}
$("draw").onclick = () => setDrawing(!drawing);
$("save-png").onclick = () => {
  chosen.sheet.toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(blob),
      download: `${data.state.name ?? "scan"}_${chosen.layer}.png`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
};
for (const tab of $("layers").children) tab.onclick = () => show(tab.dataset.show);

function setDrawing(on) {
  drawing = on;
  $("draw").setAttribute("aria-pressed", on);
  if (!on) {
    options.line = null;
    $("profile-figure").hidden = true;
  }
  schedule();
}

// --- pointers: one drags (or draws a line), two zoom -------------------------------------------------------------------

for (const layer of LAYERS) {
  const view = views[layer];
  const pointers = new Map();
  const at = (event) => {
    const box = view.canvas.getBoundingClientRect();
    return view.toObject(event.clientX - box.left, event.clientY - box.top);
  };
  const gap = () => {
    const [one, two] = [...pointers.values()];
    return Math.hypot(one.clientX - two.clientX, one.clientY - two.clientY);
  };
  view.canvas.onpointerdown = (event) => {
    view.canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    if (drawing) options.line = [at(event), at(event)];
    choose(view);
  };
  view.canvas.onpointermove = (event) => {
    const here = at(event);
    for (const each of LAYERS) views[each].read(...here);
    const before = pointers.get(event.pointerId);
    if (!before) return;
    if (pointers.size === 2) {
      const wide = gap();
      pointers.set(event.pointerId, event);
      camera.zoomAbout(gap() / wide || 1, ...here);
    } else if (drawing) {
      options.line = [options.line[0], here];
    } else {
      camera.following = false;
      camera.x -= (event.clientX - before.clientX) / camera.zoom;
      camera.y -= (event.clientY - before.clientY) / camera.zoom;
    }
    pointers.set(event.pointerId, event);
    schedule();
  };
  view.canvas.onpointerup = view.canvas.onpointercancel = (event) => pointers.delete(event.pointerId);
  view.canvas.onpointerleave = () => {
    for (const each of LAYERS) views[each].reading.textContent = "";
  };
  view.canvas.ondblclick = () => $("fit").click();
  view.canvas.tabIndex = 0;
  view.canvas.onfocus = () => choose(view);
  view.canvas.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !press(event.key)) return;
    event.preventDefault();
    for (const each of LAYERS) views[each].read(camera.y, camera.x); // what lies in the middle
    schedule();
  };
  view.canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      camera.zoomAbout(Math.exp(-event.deltaY * 0.0015), ...at(event));
      schedule();
    },
    { passive: false },
  );
}

// --- keys: arrows drag, + and - zoom about the middle, 0 fits ------------------------------------------------------------

const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Whether this key means something to a picture; what it means is done. */
function press(key) {
  if (key in KEYS) {
    camera.following = false;
    camera.y += (KEYS[key][0] * 40) / camera.zoom;
    camera.x += (KEYS[key][1] * 40) / camera.zoom;
  } else if (key === "+" || key === "=") {
    camera.zoomAbout(1.25, camera.y, camera.x);
  } else if (key === "-") {
    camera.zoomAbout(0.8, camera.y, camera.x);
  } else if (key === "0") {
    $("fit").click();
  } else {
    return false;
  }
  return true;
}

new ResizeObserver(schedule).observe($("views"));
show(shown);
data.connect();
window.ptychow = { data, views, camera, options }; // for the curious, and for the tests

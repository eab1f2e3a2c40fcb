// What people mark in the pictures: false alarms, outlines of missed defects, reviewed images. The
// masks of reviewed images are saved as PNG files in a ZIP archive. Outlines are in half pixels.
const { key, images } = JSON.parse(by("data").textContent);
const figures = all(".field");
const MIN_DRAG = 4; // pixels of the screen
let drawing = null; // the figure in which defects are drawn
let line = null; // what is being drawn: its path and points
let isUnsaved = false;

const inside = (figure, selector) => [...figure.querySelectorAll(selector)];
const isReviewed = (figure) => figure.querySelector(".reviewed").checked;

// --- marks ------------------------------------------------------------------------------------

function press(button, isPressed) { button.setAttribute("aria-pressed", String(isPressed)); }

function reject(region, isFalse = region.getAttribute("aria-pressed") === "false") {
  [region, ...all(`[data-region="${region.id}"]`)].forEach((button) => press(button, isFalse));
}

function addDrawn(figure, d) {
  const svg = figure.querySelector(".outlines");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("class", "drawn");
  path.setAttribute("d", d);
  path.setAttribute("role", "button");
  path.setAttribute("tabindex", "0");
  path.setAttribute("aria-label", "Missed defect, drawn here: remove");
  svg.append(path);
  return path;
}

function changed(figure) {
  figure.querySelector(".reviewed").checked = true;
  keep(true);
}

function keep(unsaved) {
  isUnsaved = unsaved;
  const marks = figures.map((figure) => ({
    reviewed: isReviewed(figure),
    rejected: inside(figure, ".region[aria-pressed=true]").map(({ id }) => id),
    drawn: inside(figure, ".drawn").map((path) => path.getAttribute("d")),
  }));
  try {
    localStorage.setItem(key, JSON.stringify({ marks, unsaved }));
  } catch { /* The browser keeps nothing: the marks last until the page is left. */ }
  showState();
}

function restore() {
  try {
    const { marks, unsaved } = JSON.parse(localStorage.getItem(key));
    marks.forEach(({ reviewed, rejected, drawn }, place) => {
      figures[place].querySelector(".reviewed").checked = reviewed;
      rejected.forEach((id) => reject(by(id), true));
      drawn.forEach((d) => addDrawn(figures[place], d));
    });
    isUnsaved = unsaved;
  } catch { /* Nothing is kept. */ }
  showState();
}

function showState() {
  const n = figures.filter(isReviewed).length;
  const saved = n ? `, ${isUnsaved ? "not " : ""}saved` : "";
  by("state").textContent = `${n} of ${figures.length} reviewed${saved}`;
  by("save").disabled = !n;
}

// --- clicks and keys --------------------------------------------------------------------------

function click(figure, target) {
  if (target.matches(".region")) reject(target);
  else if (target.matches(".drawn")) target.remove();
  else if (target.matches(".none")) {
    const isUndone = !figure.querySelector(".region[aria-pressed=false], .drawn");
    inside(figure, ".region").forEach((region) => reject(region, !isUndone));
    inside(figure, ".drawn").forEach((path) => path.remove());
  } else return;
  changed(figure);
}

function draw(figure) {
  if (drawing) {
    press(drawing.querySelector(".draw"), false);
    drawing.querySelector(".picture").classList.remove("drawing");
  }
  drawing = drawing === figure ? null : figure;
  if (!drawing) return;
  press(drawing.querySelector(".draw"), true);
  drawing.querySelector(".picture").classList.add("drawing");
  const outlines = document.querySelector("#legend [data-key=o]");
  if (!outlines.checked) outlines.click();
}

function goTo(region) {
  window.location.hash = region.id; // highlights it, and the browser leads back
  region.scrollIntoView({ block: "center" });
  region.focus({ preventScroll: true });
}

if (by("regions")) {
  by("regions").onclick = (event) => {
    const { region } = event.target.dataset;
    const link = event.target.closest("tr")?.querySelector("a");
    if (region) {
      reject(by(region));
      changed(by(region).closest(".field"));
    } else if (link) {
      event.preventDefault();
      goTo(by(link.hash.slice(1)));
    }
  };
}

document.onkeydown = (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("[type=number]")) return;
  const shown = document.querySelector(`#legend [data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (shown) shown.click();
  else if (event.key === "Escape" && drawing) draw(drawing);
  else if (["Enter", " "].includes(event.key) && event.target.matches(".outlines path")) {
    event.preventDefault();
    click(event.target.closest(".field"), event.target);
  }
};

// --- drawing ----------------------------------------------------------------------------------

function pointOf(figure, event) {
  const { left, top, width, height } = figure.querySelector(".outlines").getBoundingClientRect();
  const own = images[figures.indexOf(figure)];
  const along = (at, length) => Math.round(2 * length * Math.min(Math.max(at, 0), 1));
  return [along((event.clientX - left) / width, own.width), along((event.clientY - top) / height, own.height)];
}

function pathOf([first, ...others]) {
  let [x, y] = first;
  const moves = others.map(([right, down]) => {
    const move = `${right - x} ${down - y}`;
    [x, y] = [right, down];
    return move;
  });
  return `M${first.join(" ")}l${moves.join(" ")}z`;
}

function start(figure, event) {
  if (drawing !== figure || event.button || !event.isPrimary) return;
  line = { from: [event.clientX, event.clientY], points: [pointOf(figure, event)], path: null };
}

function move(figure, event) {
  if (!event.buttons) line = null; // it was released elsewhere
  if (!line) return;
  const distance = Math.hypot(event.clientX - line.from[0], event.clientY - line.from[1]);
  if (!line.path && distance < MIN_DRAG) return; // still a click
  if (!line.path) {
    line.path = addDrawn(figure, "");
    event.currentTarget.setPointerCapture(event.pointerId);
  }
  line.points.push(pointOf(figure, event));
  line.path.setAttribute("d", pathOf(line.points));
}

function finish(figure, isCancelled) {
  const made = line && line.path;
  line = null;
  if (!made) return;
  const own = images[figures.indexOf(figure)];
  if (isCancelled || !maskOf(own, [made]).includes(255)) made.remove();
  else changed(figure);
}

figures.forEach((figure) => {
  const picture = figure.querySelector(".picture");
  figure.onclick = ({ target }) => click(figure, target);
  figure.querySelector(".draw").onclick = () => draw(figure);
  figure.querySelector(".reviewed").onchange = () => keep(true);
  picture.onpointerdown = (event) => start(figure, event);
  picture.onpointermove = (event) => move(figure, event);
  picture.onpointerup = () => finish(figure, false);
  picture.onpointercancel = () => finish(figure, true);
  picture.ondragstart = (event) => event.preventDefault();
});

// --- masks ------------------------------------------------------------------------------------

// A mask, row by row: 255 where the centre of a pixel is inside an outline.
function maskOf({ width, height }, paths) {
  const mask = new Uint8Array(width * height);
  paths.forEach((path) => fill(mask, width, path.getAttribute("d")));
  return mask;
}

// Fills what is left and right of an odd number of edges, as SVG does by the rule "evenodd".
function fill(mask, width, d) {
  const crossings = {}; // of edges with the middle of each row
  d.split("z").filter(Boolean).forEach((ring) => {
    const numbers = ring.match(/-?\d+/g).map(Number);
    const points = [];
    for (let k = 0; k < numbers.length; k += 2) {
      const [x, y] = points.at(-1) || [0, 0];
      points.push([x + numbers[k], y + numbers[k + 1]]);
    }
    points.forEach((end, k) => {
      const [[x, y], [right, low]] = [points.at(k - 1), end].sort((a, b) => a[1] - b[1]);
      for (let row = Math.ceil((y - 1) / 2); 2 * row + 1 < low; row += 1) {
        crossings[row] ??= [];
        crossings[row].push(x + (2 * row + 1 - y) * (right - x) / (low - y));
      }
    });
  });
  Object.entries(crossings).forEach(([y, found]) => {
    found.sort((a, b) => a - b);
    const ends = found.map((x) => y * width + Math.ceil((x - 1) / 2));
    for (let k = 0; k < ends.length; k += 2) mask.fill(255, ends[k], ends[k + 1]);
  });
}

async function save() {
  const files = [];
  for (const figure of figures.filter(isReviewed)) {
    const own = images[figures.indexOf(figure)];
    const paths = inside(figure, ".region[aria-pressed=false], .drawn");
    files.push([`${own.name}.png`, await png(own, maskOf(own, paths))]);
  }
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([zip(files)], { type: "application/zip" }));
  link.download = "masks.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  keep(false);
}

by("save").onclick = () => save().catch((error) => {
  by("state").textContent = `The masks could not be saved: ${error.message}`;
});

// --- PNG and ZIP ------------------------------------------------------------------------------

function joined(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => { bytes.set(part, at); return at + part.length; }, 0);
  return bytes;
}

// Numbers as bytes, each with its size: the lowest byte first, as in ZIP.
function little(...fields) {
  return fields.flatMap(([size, value]) => Array.from({ length: size }, (_, k) => (value >>> (8 * k)) & 255));
}

function big(value) { return little([4, value]).reverse(); }

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = -1;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

async function png({ width, height }, mask) {
  const rows = new Uint8Array((width + 1) * height); // each begins with its filter: none
  for (let y = 0; y < height; y += 1) {
    rows.set(mask.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const chunk = (name, content) => {
    const body = joined([new TextEncoder().encode(name), content]);
    return joined([big(content.length), body, big(crc(body))]);
  };
  return joined([
    [0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10],
    chunk("IHDR", [...big(width), ...big(height), 8, 0, 0, 0, 0]), // grey, 8 bits
    chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    chunk("IEND", []),
  ]);
}

// Files [name, bytes] as an archive, stored: they are compressed already.
function zip(files) {
  const [parts, entries] = [[], []];
  let at = 0;
  files.forEach(([text, bytes]) => {
    const name = new TextEncoder().encode(text);
    // Version 2.0, names in UTF-8, stored, midnight of 1 January 1980.
    const common = little([2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, crc(bytes)],
      [4, bytes.length], [4, bytes.length], [2, name.length], [2, 0]);
    parts.push(little([4, 0x04034b50]), common, name, bytes);
    entries.push(little([4, 0x02014b50], [2, 20]), common, little([2, 0], [2, 0], [2, 0], [4, 0], [4, at]), name);
    at += 4 + common.length + name.length + bytes.length;
  });
  const index = joined(entries);
  const end = little([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length],
    [4, index.length], [4, at], [2, 0]);
  return joined([...parts, index, end]);
}

// ----------------------------------------------------------------------------------------------

document.documentElement.classList.add("scripted");
window.onbeforeunload = (event) => {
  if (!isUnsaved) return;
  event.preventDefault();
  event.returnValue = true; // for older browsers
};
restore();

// The outlines of a folder: looked at and corrected. The server works out what a stroke changes, and
// has saved it when it answers; this page draws, and sends strokes in pixels of the image.
const POLL = 4_000; // ms between questions what other windows have changed
const NEAR = 8; // pixels of the screen by which a stroke may begin beside an edge
const LEGIBLE = 60; // pixels of the screen, so long at least is shown what a person should judge
const STEP = 2; // pixels of the screen between points of a stroke
const MOST = 3_000; // points of a stroke that are sent
const COLOURS = ["#ff8c1a", "#4db8ff", "#5fd38d", "#ff6fb5", "#ffd83d", "#b58cff", "#38d9d9", "#ff7a70", "#c6e05a", "#e0b48c"];

let images = [];
let shown = null; // the open image, as the server has answered
let shapes = new Map(); // label -> { label, class, area, path, box }
const selected = new Set(); // labels
const passed = new Set(); // doubtful outlines that were looked at in this round: image and label
let tool = "select";
let hidden = false;
let image = null; // its pixels
let stroke = null; // points that are being drawn
let cross = null; // where arrow keys have moved the cross, in pixels of the image
let drag = null;
let line = Promise.resolve(); // what is sent, in order
let asked = 0; // what there is, so often: of two answers, that to the later question counts
let refusals = 0; // so far
const pointers = new Map();
let waiting = 0; // for the next frame
const rows = new Map(); // image id -> its button
let note = ""; // why edits are not in the folder's files yet

// --- the server -------------------------------------------------------------------------------

async function refresh() {
  if (busy || stroke) return;
  const clicked = clicks;
  const answer = { asked: ++asked, ...await request("images") };
  if (!answer.images || busy || clicked !== clicks || stroke || answer.asked < state.asked) return;
  takeList(answer);
  await inLine(async () => { // an image that is opened twice would lose what was chosen meanwhile
    const isAnew = shown?.id < 0;
    const mine = images.find(({ id, name }) => shown && (isAnew ? name === shown.name : id === shown.id));
    if (images.length && (!shown || isAnew)) await open(shown ? mine?.id : Number(location.hash.slice(1)) || (inOrder().find(({ error }) => !error) ?? images[0]).id);
    else if (mine && mine.version !== shown.version && !(mine.error && shown.version < 0)) {
      if (shown.version >= 0) say("this image was changed in another window: it is shown as it is now");
      await open(mine.id);
    }
  });
}

function takeList(answer) {
  images = answer.images;
  if (takeState(answer)) {
    rows.clear();
    by("list").replaceChildren();
    shown &&= { ...shown, id: -1 }; // to be opened by its name
  }
  categories = answer.classes.map((name, place) => ({ id: place + 1, name }));
  showNote(answer.note);
  showList();
  showChoices();
  if (shown) press(by("done"), isDone());
}

// It stays to be read until the files are written.
function showNote(now) {
  if (now) showTrouble(now, false);
  else if (note && by("trouble-text").textContent === note) hideTrouble();
  note = now;
}

async function open(id) {
  const found = images.find((each) => each.id === id) ?? images[0];
  const isOther = !shown || shown.id !== found.id;
  try {
    const answer = await post("outlines", { image: found.id });
    shown = { id: found.id, ...answer };
  } catch (error) {
    if (isOther) { shown = { id: found.id, version: -1, height: 1, width: 1, name: found.name, can_undo: false, can_redo: false }; say(""); }
    shapes = new Map();
    by("wait").hidden = false;
    by("wait").textContent = `This image cannot be read: ${error.message}`;
    showAll();
    return;
  }
  takeOutlines(shown);
  if (isOther) {
    stroke = null;
    location.hash = String(found.id);
    selected.clear();
    cross = null;
    image = null;
    for (const name of Object.keys(layers)) if (layers[name]) showLayer(name, true, false);
    fit();
    loadPixels(found.id);
    prepare();
    say(state.is_found ? `${shown.name}: ${[...(shown.version < 0 ? [] : [plural(shapes.size)]), ...(shown.message ? [shown.message] : [])].join(". ")}` : "");
  }
  showAll();
}

// Another number of images may have the same ids once particles are found, or taken back.
function pathOfPicture(size, id) { return `${size}/${id}?${state.generation}-${state.is_found}`; }

async function loadPixels(id) {
  const img = newPicture("", "");
  Object.assign(by("wait"), { hidden: false, textContent: "loading…" });
  img.src = pathOfPicture("whole", id);
  const why = await whyUnreadable(img, () => shown.id === id);
  if (why === null) return;
  if (!why) image = img;
  Object.assign(by("wait"), { hidden: !why, textContent: `This image cannot be shown: ${why}` });
  draw();
}

function takeOutlines({ is_whole: isWhole, removed, outlines }) {
  if (isWhole) shapes = new Map();
  removed.forEach((label) => shapes.delete(label));
  for (const each of outlines) shapes.set(each.label, { ...each, ...pathOf(each.rings) });
  for (const label of selected) if (!shapes.has(label)) selected.delete(label);
}

function pathOf(rings) {
  const path = new Path2D();
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      if (i) path.lineTo(ring[i], ring[i + 1]); else path.moveTo(ring[i], ring[i + 1]);
      box[0] = Math.min(box[0], ring[i]); box[1] = Math.min(box[1], ring[i + 1]);
      box[2] = Math.max(box[2], ring[i]); box[3] = Math.max(box[3], ring[i + 1]);
    }
    path.closePath();
  }
  return { path, box };
}

// One after the other, as fast as a person works; after a refusal, those that wait are not sent.
function inLine(use) {
  const mine = refusals;
  line = line.catch(() => {}).then(() => (mine === refusals ? use() : null));
  return line;
}

function send(path, body) { return inLine(() => sendNow(path, body)); }

// Send an edit of the open image; what it makes is chosen then.
async function sendNow(path, body) {
  if (!shown || !state.is_found || shown.version < 0) return shown?.version < 0 ? say("nothing to correct yet: this image is not searched, or cannot be read") : null;
  const id = shown.id;
  const answer = await click(path, { image: id, version: shown.version, ...body }, (edited) => {
    if (shown.id !== id) return;
    Object.assign(shown, { version: edited.version, can_undo: edited.can_undo, can_redo: edited.can_redo });
    takeOutlines(edited);
    if (path === "edit" && body.action !== "name") selected.clear();
    if (!edited.is_whole && !/draw|grow/.test(body.action)) edited.outlines.forEach(({ label }) => selected.add(label));
    showNote(edited.note);
    say(`saved: ${edited.message}`);
    const mine = images.find((each) => each.id === id);
    Object.assign(mine, { version: edited.version, n: shapes.size, is_edited: edited.can_undo, is_done: edited.is_done });
    showList();
  });
  showAll();
  if (answer) return null;
  refusals += 1;
  const before = shown.version;
  await open(shown.id); // which another window may have changed; what is said of it stays to be read
  if (shown.version !== before) selected.clear();
  showAll();
}

function edit(action, more = {}) { return send("edit", { action, labels: [...selected], stroke: [], reach: 1, name: "", ...more }); }

// --- edits ------------------------------------------------------------------------------------

function remove() { if (selected.size) return edit("delete"); return sayChoose(); }
function merge() { return selected.size > 1 ? edit("merge") : say("choose two or more outlines to merge: click on them with Shift, or W with Shift"); }
function undo() { return send("undo", {}); }
redo = () => send("redo", {});

function isDone() { return Boolean(images.find(({ id }) => id === shown.id)?.is_done); }
function mark() { return inLine(() => sendNow("mark", { is_done: !isDone() })); }

function assign(id) {
  const { name } = categories.find((each) => each.id === id);
  return selected.size ? edit("name", { name }) : sayChoose();
}

function openDialog() {
  if (state.is_found && !selected.size) sayChoose();
  else if (state.is_found) askName(({ id, name }) => { if (!categories.some((each) => each.id === id)) categories.push({ id, name }); return edit("name", { name }); });
}

function sayChoose() { say("choose outlines first: click on them, or press W"); }

function finish() {
  let points = stroke;
  stroke = null;
  draw();
  if (points.length < 2 && tool !== "grow") { say("drag the pointer to draw"); return; }
  while (points.length > MOST) points = points.filter((_, place) => place % 2 === 0 || place === points.length - 1);
  const flat = points.flat().map((each) => Math.round(10 * each) / 10);
  const labels = tool === "draw" ? [] : [...selected];
  edit(tool, { labels, stroke: flat, reach: Math.max(1, Math.round(NEAR / view.scale)) });
}

// --- choosing ---------------------------------------------------------------------------------

const scratch = document.createElement("canvas").getContext("2d");

// The outlines around a point of the image, the smallest first, else the smallest with a hole there.
function outlinesAt([x, y]) {
  const isIn = (path) => scratch.isPointInPath(path, x, y, "evenodd");
  const near = [...shapes.values()].filter(({ box }) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]).sort((a, b) => a.area - b.area);
  const around = near.filter(({ path }) => isIn(path));
  return around.length ? around : near.filter(({ rings }) => rings.some((ring) => isIn(pathOf([ring]).path))).slice(0, 1);
}

function chooseWithin([x, y], [otherX, otherY]) { // all outlines that lie in a rectangle
  const [left, right, top, bottom] = [Math.min(x, otherX), Math.max(x, otherX), Math.min(y, otherY), Math.max(y, otherY)];
  const found = [...shapes.values()].filter(({ box }) => box[0] >= left && box[2] <= right && box[1] >= top && box[3] <= bottom);
  found.forEach(({ label }) => selected.add(label));
  say(`${plural(found.length)} in the rectangle`);
  showAll();
}

// Of outlines that overlap, the first; with Shift, one more each time, and where all are chosen, one less.
function choose(here, isMore) {
  if (!isMore) selected.clear();
  const isChosen = ({ label }) => selected.has(label);
  const found = here.find((each) => !isChosen(each)) ?? here[0];
  if (found) { say(wordsOf(found)); if (!selected.delete(found.label)) selected.add(found.label); }
  showAll();
}

function wordsOf({ label, class: own, area }) {
  const nm = shown.pixel_size;
  const size = nm ? `, ${diameter(2 * nm * Math.sqrt(area / Math.PI))}` : "";
  return `outline ${label}${own ? `, ${own}` : ""}, ${count(area)} pixels${size}`;
}

function diameter(nm) { return nm < 1000 ? `${nm.toPrecision(3)} nm across` : `${(nm / 1000).toPrecision(3)} µm across`; }

function turnTo(step, isMore) {
  const order = [...shapes.values()].sort((a, b) => a.box[1] - b.box[1] || a.box[0] - b.box[0]);
  if (!order.length) { say("no outlines here"); return; }
  const last = order.findIndex(({ label }) => label === [...selected].at(-1));
  const found = order[last < 0 ? (step > 0 ? 0 : order.length - 1) : (last + step + order.length) % order.length];
  if (!isMore) selected.clear();
  look(found, `${order.indexOf(found) + 1} of ${order.length}`);
}

function look(found, words) {
  const [left, top, right, bottom] = found.box;
  selected.delete(found.label);
  selected.add(found.label);
  bringIntoView([(left + right) / 2, (top + bottom) / 2]);
  say(`${wordsOf(found)}, ${words}`);
  showAll();
}

// To the most doubtful outline of all images that are not done: each comes once, then a new round begins.
function turnToDoubtful() {
  return inLine(async () => {
    const { image: id, label, message } = await request("doubtful", { passed: [...passed] }) ?? {};
    if (!label) { passed.clear(); say(message ?? ""); return; }
    passed.add(`${id} ${label}`);
    if (id !== shown.id) await open(id);
    selected.clear();
    if (!shapes.has(label)) return; // another window has changed it
    const [left, top, right, bottom] = shapes.get(label).box;
    zoom(Math.max(1, LEGIBLE / (view.scale * Math.max(right - left, bottom - top))));
    look(shapes.get(label), message);
  });
}

// --- the view ---------------------------------------------------------------------------------

function extent() { return shown ? [shown.width, shown.height] : [1, 1]; }

function bringIntoView(pixel) {
  size().forEach((side, axis) => {
    const [at, margin] = [view.scale * pixel[axis] + view["xy"[axis]], view.scale * extent()[axis] > side + 1 ? 40 : 0]; // none where all is in sight
    if (at < margin || at > side - margin) view["xy"[axis]] += side / 2 - at;
  });
}

function draw() { waiting ||= requestAnimationFrame(() => { waiting = 0; paint(); }); }

function paint() {
  if (!shown) return;
  const [width, height] = size();
  const dense = window.devicePixelRatio || 1;
  const [pixels, lines] = ["pixels", "lines"].map((name) => {
    const canvas = by(name);
    const [across, down] = [width, height].map((side) => Math.round(side * dense));
    if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const { scale, x, y } = view;
    context.setTransform(dense * scale, 0, 0, dense * scale, dense * x, dense * y);
    return context;
  });
  pixels.imageSmoothingEnabled = view.scale < 2;
  if (image) pixels.drawImage(image, 0, 0, shown.width, shown.height);
  if (!hidden) paintOutlines(lines, [-view.x / view.scale, -view.y / view.scale, (width - view.x) / view.scale, (height - view.y) / view.scale]);
  paintLayers(lines);
  if (!state.is_found) paintFrames(lines);
  if (stroke) paintStroke(lines, stroke, tool === "draw");
  if (drag?.to) paintStroke(lines, [drag.corner, [drag.to[0], drag.corner[1]], drag.to, [drag.corner[0], drag.to[1]]], true);
  if (cross) strokeTwice(lines, new Path2D(crossAt(cross, 10 / view.scale)), "#ffffff", 1.5);
}

function paintOutlines(lines, [left, top, right, bottom]) {
  lines.lineJoin = "round";
  for (const { label, class: own, path, box } of shapes.values()) {
    if (box[2] < left || box[0] > right || box[3] < top || box[1] > bottom) continue;
    const colour = COLOURS[(1 + categories.findIndex(({ name }) => name === own)) % COLOURS.length];
    const isChosen = selected.has(label);
    if (isChosen) Object.assign(lines, { fillStyle: "rgb(255 255 255 / 25%)" }).fill(path, "evenodd");
    strokeTwice(lines, path, isChosen ? "#ffffff" : colour, isChosen ? 2.5 : 1.5);
  }
}

function strokeTwice(lines, path, colour, width) { // with a dark rim, so that it is seen on any ground
  for (const [own, wide] of [["rgb(0 0 0 / 60%)", 2 * width], [colour, width]]) {
    lines.strokeStyle = own;
    lines.lineWidth = wide / view.scale;
    lines.stroke(path);
  }
}

function paintStroke(lines, points, isClosed) { strokeTwice(lines, new Path2D(`M${points.join("L")}${isClosed ? "Z" : ""}`), "#ffffff", 2); }

function paintFrames(lines) { // of a bar that was found, and of the part that was previewed, before particles are found
  const [left, top, right, bottom] = (images.find(({ id }) => id === shown.id)?.bar ?? []).map((share, place) => share * extent()[place % 2]);
  const rim = 6 / view.scale, { part } = shown;
  const frame = (x, y, width, height, colour) => strokeTwice(lines, new Path2D(`M${x} ${y}h${width}v${height}h${-width}Z`), colour, 1.5);
  if (right && !shapes.size) frame(left - rim, top - rim, right - left + 2 * rim, bottom - top + 2 * rim, COLOURS[0]);
  if (part) frame(part.left, part.top, part.width, part.height, "#ffffff");
}

// --- pointers and the cross -------------------------------------------------------------------

stage.onpointerdown = (event) => {
  if (!shown) return;
  event.preventDefault();
  stage.focus();
  stage.setPointerCapture(event.pointerId);
  cross = null;
  pointers.set(event.pointerId, event);
  if (pointers.size === 2) { // two fingers move and zoom
    stroke = null;
    drag = { pinch: pinch() };
  } else if (event.button || tool === "select") drag = { from: event, moved: false, corner: event.shiftKey && !event.button ? pixelAt(event) : null };
  else stroke = [pixelAt(event)];
  draw();
};

stage.onpointermove = (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  pointers.set(event.pointerId, event);
  if (drag?.pinch) {
    if (pointers.size < 2) return;
    const now = pinch();
    [view.x, view.y] = [view.x, view.y].map((each, axis) => each + now.at[axis] - drag.pinch.at[axis]);
    zoom(now.apart / drag.pinch.apart, now.at);
    drag.pinch = now;
  } else if (drag) {
    drag.moved ||= hasMoved(event, drag.from);
    if (drag.moved && drag.corner) drag.to = pixelAt(event);
    else if (drag.moved) { view.x += event.clientX - before.clientX; view.y += event.clientY - before.clientY; }
  } else if (stroke) (event.getCoalescedEvents?.() ?? [event]).forEach((each) => addPoint(pixelAt(each)));
  draw();
};

stage.onpointerup = (event) => {
  if (!pointers.delete(event.pointerId)) return;
  if (drag?.from && !drag.moved && !event.button) choose(outlinesAt(pixelAt(event)), event.shiftKey || event.ctrlKey || event.pointerType === "touch");
  else if (drag?.to) chooseWithin(drag.corner, pixelAt(event));
  else if (stroke) { addPoint(pixelAt(event)); finish(); }
  if (!pointers.size) drag = null;
};

stage.onpointercancel = (event) => { pointers.delete(event.pointerId); stroke = drag = null; draw(); };
stage.oncontextmenu = (event) => event.preventDefault();
function pinch() {
  const [one, two] = [...pointers.values()].map(placeOf);
  return { at: one.map((each, axis) => (each + two[axis]) / 2), apart: Math.max(1, Math.hypot(one[0] - two[0], one[1] - two[1])) };
}

function addPoint([x, y]) {
  const [lastX, lastY] = stroke.at(-1);
  if (Math.hypot(x - lastX, y - lastY) * view.scale >= STEP) {
    const within = (each, side) => Math.min(Math.max(each, -0.5 * side), 1.5 * side);
    stroke.push([within(x, shown.width), within(y, shown.height)]);
  }
}

function moveCross(key, isFine) {
  cross = moved(cross ?? middle(), key, isFine);
  if (stroke) addPoint(cross);
  bringIntoView(cross);
  const [under] = outlinesAt(cross);
  say(under ? wordsOf(under) : "background");
  draw();
}

function useCross() {
  if (!cross) { moveCross("", false); return; }
  if (tool === "select") choose(outlinesAt(cross), true);
  else if (stroke) finish();
  else { stroke = [[...cross]]; if (tool === "grow") finish(); else say("the pen is down: arrow keys draw, Space ends, Escape gives up"); draw(); }
}

function escape() {
  if (stroke) { stroke = null; say("the stroke is given up"); }
  else if (selected.size) selected.clear();
  else setTool("select");
  showAll();
}

// --- what is shown ----------------------------------------------------------------------------

function plural(n) { return `${count(n)} outline${n === 1 ? "" : "s"}`; }

function setTool(name) {
  tool = name;
  stroke = null;
  stage.dataset.tool = name;
  document.querySelectorAll("button[data-tool]").forEach((each) => press(each, each.dataset.tool === name));
  by("hint").textContent = document.querySelector(`[data-tool=${name}][data-hint]`).dataset.hint;
  prepare();
  draw();
}

function prepare() { if (tool === "grow" && shown?.version >= 0) post("prepare", { image: shown.id }).catch(() => {}); } // for a click soon

function showAll() {
  const n = selected.size;
  by("chosen").textContent = n ? `${plural(n)} chosen` : "Nothing chosen";
  by("name").textContent = (state.is_found && shown.version >= 0) || shapes.size ? `${shown.name} · ${plural(shapes.size)}` : shown.name;
  const useless = { delete: !n, merge: n < 2, undo: !shown.can_undo, redo: !shown.can_redo, done: shown.version < 0 };
  for (const [name, isUseless] of Object.entries(useless)) by(name).disabled = busy || isUseless;
  press(by("done"), isDone());
  showChoices();
  markCurrent();
  draw();
}

function showChoices() {
  const common = new Set([...selected].map((label) => shapes.get(label).class));
  by("choices").replaceChildren(...keyed().map((category, index) => {
    const made = choiceButton(category, index);
    press(made, common.size === 1 && common.has(category.name));
    const dot = element("span", "dot");
    dot.style.background = COLOURS[(index + 1) % COLOURS.length];
    made.append(dot);
    return element("li", "", made);
  }));
  showMore();
}

function showList() {
  let room = 300; // rows at a time: the open image comes before the rest of thousands
  for (const each of images) {
    if (!rows.has(each.id)) {
      if (!room--) { setTimeout(showList, 100); break; }
      const img = smallPicture(pathOfPicture("small", each.id));
      const made = button(() => inLine(() => open(each.id)), "", img, element("span", "file", each.name), element("span", "about"));
      rows.set(each.id, Object.assign(made, { title: each.name }));
      by("list").append(element("li", "", made));
      seen.observe(img);
    }
    const words = [`${wordsWithGroup(each.words ?? plural(each.n), each.name)} `, each.is_done ? element("b", "", "done") : each.is_edited ? "edited" : ""];
    const { lastChild: about } = Object.assign(rows.get(each.id), each.error && { title: each.error });
    if (about.textContent !== words.map((own) => own.textContent ?? own).join("")) about.replaceChildren(...words); // few have changed
  }
  showWhys();
  const done = images.filter((each) => each.is_done).length;
  Object.assign(by("bar"), { hidden: !state.is_found, max: Math.max(images.length, 1), value: done });
  by("progress").textContent = state.is_found ? `${count(done)} of ${count(images.length)} image${images.length === 1 ? "" : "s"} done` : state.progress;
  document.title = `${by("progress").textContent} – hypervlad`;
}

function markCurrent() {
  const now = rows.get(shown.id);
  if (!now || now.ariaCurrent) return;
  by("list").querySelector("[aria-current]")?.removeAttribute("aria-current");
  now.setAttribute("aria-current", "true");
  showGroup();
  now.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// The images first of which a classifier, or finding, is least sure; without both, as in the list.
function inOrder() { return [...images].sort((a, b) => (a.confidence ?? 2) - (b.confidence ?? 2)); }

// To the image before, or to the next one that is not done, if there is any.
function turn(step) {
  const order = inOrder();
  const place = order.findIndex(({ id }) => id === shown.id);
  const others = [...order.slice(place + 1), ...order.slice(0, place)];
  const next = step < 0 ? others.at(-1) : others.find((each) => !each.is_done && each.version >= 0) ?? others[0];
  if (next) inLine(() => open(next.id));
}

function toggle() {
  hidden = !hidden;
  press(by("hide"), hidden);
  say(hidden ? "outlines are hidden" : "outlines are shown");
  draw();
}

// --- keys and the rest ------------------------------------------------------------------------

function actionsOf({ key, shiftKey, target }) {
  if (by("sheet").open || !shown || target.matches("input:not([type=range])")) return {};
  const moves = Object.fromEntries(MOVES.slice(0, 4).map((each) => [each.toLowerCase(), () => moveCross(each, shiftKey)]));
  const common = {
    ...taskActions(), f: fit, ",": () => turn(-1), ".": () => turn(1), "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4),
    h: toggle, o: () => showLayer("left_out"), q: () => turnTo(-1, shiftKey), w: () => turnTo(1, shiftKey), escape,
  };
  return state.is_found ? { ...common,
    d: mark, j: turnToDoubtful, x: remove, delete: remove, backspace: remove, m: merge, r: redo,
    v: () => setTool("select"), a: () => setTool("draw"), s: () => setTool("grow"), c: () => setTool("split"), e: () => setTool("redraw"),
    ...(!target.matches("input, button, a") && { ...moves, " ": useCross, enter: useCross }),
  } : common;
}

by("brightness").oninput = by("contrast").oninput = () => { by("pixels").style.filter = `brightness(${by("brightness").value}%) contrast(${by("contrast").value}%)`; };
setInterval(refresh, POLL);
setTool("select");
ownName("outlines").then((name) => { client = name; refresh(); });

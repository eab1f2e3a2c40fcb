// A contact sheet of classified images: filtered, sorted, and drawn one page at a time.

const N_BINS = 20; // of the histogram: 5 % each
const WIDTH = 240; // of the histogram, in its own units; as in the page
const HEIGHT = 66;
const TYPING = 120; // ms without a key before the text is searched for

const data = JSON.parse(by("data").textContent);
const KIND_TEXTS = {
  sure: "sure", ambiguous: "ambiguous", like_training: `like the training ${data.unit}s`,
  out_of_distribution: `unlike the training ${data.unit}s`,
};
const n = data.names.length;
const all = Array.from({ length: n }, (_, image) => image);
const confidence = data.proba.map((row) => Math.max(...row));
const folded = data.names.map((name) => name.toLowerCase());
const isJudged = Boolean(data.reasons);
const KINDS = isJudged
  ? ["sure", "ambiguous", "out_of_distribution"] : ["like_training", "out_of_distribution"];
const TRUTH_TEXTS = { correct: "predicted correctly", wrong: "predicted wrongly", unknown: "unknown" };
const truths = (data.truth || []).map((label, image) => {
  if (label === null) return "unknown";
  return label === data.classes[data.predicted[image]] ? "correct" : "wrong";
});
const TRUTHS = Object.keys(TRUTH_TEXTS).filter((name) => truths.includes(name));
const byName = new Intl.Collator("en", { numeric: true }).compare;

const filter = { text: "", classes: new Set(), kinds: new Set(), truths: new Set(), low: 0, high: 100 };
let found = []; // images that fit the filter, in order
let first = 0; // of those drawn
let opened = null; // place, in what was found, of the image whose details are shown

// --- filters and order -------------------------------------------------------------

const tests = {
  text: (image) => folded[image].includes(filter.text),
  classes: (image) => !filter.classes.size || filter.classes.has(data.predicted[image]),
  kinds: (image) => !filter.kinds.size || filter.kinds.has(data.kinds[image]),
  truths: (image) => !filter.truths.size || filter.truths.has(truths[image]),
  confidence: (image) => inRange(confidence[image]),
};

function inRange(share) { return 100 * share >= filter.low && 100 * share <= filter.high; }

// The images that pass the filter, or all its parts but one: the bars of that part count these.
function fitting(without = "") {
  const active = Object.keys(tests).filter((name) => name !== without).map((name) => tests[name]);
  return all.filter((image) => active.every((test) => test(image)));
}

const orders = {
  doubt: (a, b) => confidence[a] - confidence[b],
  sure: (a, b) => confidence[b] - confidence[a],
  name: () => 0,
  class: (a, b) => data.predicted[a] - data.predicted[b] || confidence[b] - confidence[a],
  novelty: (a, b) => data.novelty[b] - data.novelty[a],
};

function sorted(images) {
  const before = orders[by("order").value];
  return images.sort((a, b) => before(a, b) || byName(data.names[a], data.names[b]) || a - b);
}

function update() {
  found = sorted(fitting());
  first = 0;
  drawClasses();
  drawKinds();
  drawTruths();
  drawHistogram();
  drawPage();
}

// --- a page of cards --------------------------------------------------------------------------

function atOnce() { return Number(by("at-once").value); }

function drawPage() {
  const last = Math.min(first + atOnce(), found.length);
  by("grid").replaceChildren(...found.slice(first, last).map(card));
  by("nothing").hidden = found.length > 0;
  const whole = `${count(n)} ${data.unit}${n === 1 ? "" : "s"}`;
  by("status").textContent = found.length === n ? whole : `${count(found.length)} of ${whole}`;
  by("pages").hidden = found.length <= atOnce() && !first;
  by("place").textContent = `${count(first + 1)} – ${count(last)} of ${count(found.length)}`;
  by("previous").disabled = first === 0;
  by("next").disabled = last >= found.length;
}

function turn(pages) {
  first = Math.max(0, first + pages * atOnce());
  drawPage();
  by("sheet").scrollIntoView();
  const start = by("grid").querySelector("button");
  if (start) start.focus({ preventScroll: true });
}

function card(image) {
  const kind = data.kinds[image];
  const label = data.classes[data.predicted[image]];
  const button = element("button", `card ${kind}`);
  button.type = "button";
  button.dataset.image = image;
  button.title = data.names[image];
  const meter = element("span", "meter");
  meter.append(element("span"));
  meter.firstChild.style.width = `${100 * confidence[image]}%`;
  const line = element("span", "line");
  line.append(element("span", "class", label), element("span", "share", percent(confidence[image])));
  const caption = element("span", "caption");
  caption.append(line, element("span", "file", data.names[image].split(/[\\/]/).pop()));
  const isWrong = truths[image] === "wrong";
  if (isWrong) caption.append(element("span", "truth", `true label: ${data.truth[image]}`));
  const marked = kind !== "like_training"; // what is usual needs no mark
  if (marked) {
    const text = element("span", "kind", KIND_TEXTS[kind]);
    text.prepend(element("span", `dot ${kind}`));
    caption.append(text);
  }
  button.append(stage(image), meter, caption);
  const words = [data.names[image], label, percent(confidence[image]),
    isWrong && `true label: ${data.truth[image]}`, marked && KIND_TEXTS[kind]];
  button.setAttribute("aria-label", words.filter(Boolean).join(", "));
  const item = element("li");
  item.append(button);
  return item;
}

function stage(image) {
  const box = element("span", "stage");
  const shown = thumbnail(image);
  box.append(shown || "not shown");
  return box;
}

function thumbnail(image) {
  const kept = by(`thumbnail-${image}`);
  if (!kept) return null;
  const img = new Image();
  img.alt = "";
  img.decoding = "async";
  img.src = `data:image/jpeg;base64,${kept.textContent}`;
  return img;
}

// --- bars -------------------------------------------------------------------------------------

function bar(tag, name, number, share, dot = "") {
  const made = element(tag, "bar");
  const fill = element("span", "fill");
  fill.style.width = `${100 * share}%`;
  made.append(fill);
  if (dot) made.append(element("span", `dot ${dot}`));
  made.append(element("span", "name", name), element("span", "number", number));
  return made;
}

// One button per value: its number of images, and whether only these are shown.
function drawBars(list, part, values, names, numbers, dots = []) {
  const most = Math.max(1, ...numbers);
  const focused = document.activeElement && document.activeElement.dataset.value;
  const isInside = list.contains(document.activeElement);
  list.replaceChildren(...values.map((value, k) => {
    const button = bar("button", names[k], count(numbers[k]), numbers[k] / most, dots[k]);
    button.type = "button";
    button.dataset.value = value;
    button.setAttribute("aria-pressed", String(filter[part].has(value)));
    button.onclick = () => toggle(part, value);
    const item = element("li");
    item.append(button);
    return item;
  }));
  if (isInside) [...list.querySelectorAll("button")].find((b) => b.dataset.value === focused).focus();
}

function toggle(part, value) {
  if (!filter[part].delete(value)) filter[part].add(value);
  update();
}

function drawClasses() {
  const numbers = data.classes.map(() => 0);
  fitting("classes").forEach((image) => { numbers[data.predicted[image]] += 1; });
  drawBars(by("classes"), "classes", data.classes.map((_, k) => k), data.classes, numbers);
}

function drawKinds() {
  const numbers = KINDS.map(() => 0);
  fitting("kinds").forEach((image) => { numbers[KINDS.indexOf(data.kinds[image])] += 1; });
  drawBars(by("kinds"), "kinds", KINDS, KINDS.map((kind) => KIND_TEXTS[kind]), numbers, KINDS);
}

function drawTruths() {
  if (!by("truths")) return;
  const numbers = TRUTHS.map(() => 0);
  fitting("truths").forEach((image) => { numbers[TRUTHS.indexOf(truths[image])] += 1; });
  drawBars(by("truths"), "truths", TRUTHS, TRUTHS.map((name) => TRUTH_TEXTS[name]), numbers);
}

// --- the histogram ----------------------------------------------------------------------------

function drawHistogram() {
  const bins = Array.from({ length: N_BINS }, () => KINDS.map(() => 0));
  fitting("confidence").forEach((image) => {
    bins[binOf(confidence[image])][KINDS.indexOf(data.kinds[image])] += 1;
  });
  const totals = bins.map((parts) => parts.reduce((a, b) => a + b));
  const most = Math.max(1, ...totals);
  const wide = WIDTH / N_BINS;
  const shapes = [svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT })];
  bins.forEach((parts, bin) => {
    let y = HEIGHT;
    parts.forEach((number, k) => {
      const height = number * (HEIGHT - 2) / most;
      y -= height;
      const outside = isOutside(bin) ? " outside" : "";
      const shape = { x: bin * wide + 0.5, y, width: wide - 1, height, class: KINDS[k] + outside };
      if (number) shapes.push(svg("rect", shape));
    });
  });
  totals.forEach((total, bin) => shapes.push(target(bin, total, wide)));
  [0, 50, 100].forEach((tick) => {
    const anchor = { 0: "start", 50: "middle", 100: "end" }[tick];
    shapes.push(svg("text", { x: tick * WIDTH / 100, y: HEIGHT + 13, "text-anchor": anchor }, `${tick} %`));
  });
  by("histogram").replaceChildren(...shapes);
  const counts = totals.map((total, bin) => total && `${range(bin)}: ${total}`).filter(Boolean);
  by("histogram").setAttribute("aria-label", `Number of ${data.unit}s by confidence. ${counts.join("; ")}`);
}

function binOf(share) { return Math.min(N_BINS - 1, Math.floor(share * N_BINS)); }
function lowOf(bin) { return bin * 100 / N_BINS; }
function range(bin) { return `${lowOf(bin)} to ${lowOf(bin + 1)} %`; }
function isOutside(bin) { return lowOf(bin + 1) <= filter.low || lowOf(bin) >= filter.high; }

// The whole height of a bin can be clicked: to show only its images, or all again.
function target(bin, total, wide) {
  const shape = svg("rect", { x: bin * wide, y: 0, width: wide, height: HEIGHT, class: "bin" });
  shape.append(svg("title", {}, `${range(bin)}: ${count(total)}`));
  shape.onclick = () => {
    const isAlone = filter.low === lowOf(bin) && filter.high === lowOf(bin + 1);
    setRange(isAlone ? 0 : lowOf(bin), isAlone ? 100 : lowOf(bin + 1));
  };
  return shape;
}

function setRange(low, high) {
  by("low").value = low;
  by("high").value = high;
  readRange();
}

function readRange() {
  const number = (id, otherwise) => (by(id).value === "" ? otherwise : Number(by(id).value));
  filter.low = number("low", 0);
  filter.high = number("high", 100);
  update();
}

// --- details ----------------------------------------------------------------------------------

function showDetails(place) {
  opened = place;
  const image = found[place];
  const kind = data.kinds[image];
  by("details-name").textContent = data.names[image];
  by("details-thumbnail").replaceChildren(thumbnail(image) || "not shown");
  const label = data.classes[data.predicted[image]];
  by("details-answer").replaceChildren(...[
    element("span", `dot ${kind}`),
    `${label}, ${percent(confidence[image])}`,
    element("span", "kind", KIND_TEXTS[kind]),
  ]);
  if (data.truth) show("details-truth", truthText(image));
  // The reason of a sure prediction is the prediction itself.
  show("details-reason", isJudged && kind !== "sure" && `Why: ${data.reasons[image]}.`);
  show("details-novelty", noveltyText(data.novelty[image]));
  show("details-possible", data.possible && possibleText(data.possible[image], kind));
  drawProbabilities(image);
  drawNearest(image);
  by("details-link").hidden = !data.links[image];
  by("original").href = data.links[image];
  by("details-place").textContent = `${count(place + 1)} of ${count(found.length)}`;
  by("before").disabled = place === 0;
  by("after").disabled = place === found.length - 1;
  if (!by("details").open) by("details").showModal();
}

function truthText(image) {
  const label = data.truth[image];
  return label === null ? "" : `True label: ${label} (${TRUTH_TEXTS[truths[image]]}).`;
}

function noveltyText(novelty) {
  return `Unlike them by ${novelty.toFixed(2)} (above 1, the confidence means little).`;
}

function possibleText(classes, kind) {
  const warning = kind === "out_of_distribution" ? ` (not reliable if it is unlike the training ${data.unit}s)` : "";
  return `Possible: ${classes.join(", ")}${warning}.`;
}

function show(id, text) {
  by(id).textContent = text || "";
  by(id).hidden = !text;
}

function drawProbabilities(image) {
  const row = data.proba[image];
  const order = row.map((_, k) => k).sort((a, b) => row[b] - row[a]);
  by("details-proba").replaceChildren(
    ...order.map((k) => bar("li", data.classes[k], percent(row[k]), row[k])));
}

function drawNearest(image) {
  by("details-nearest").replaceChildren(...data.nearest[image].map((row) => {
    const [name, label] = data.training[row];
    return element("li", "", name ? `${label}: ${name}` : `${label}`);
  }));
}

function showNext(steps) {
  const place = opened + steps;
  if (place >= 0 && place < found.length) showDetails(place);
}

// Back to the card of the image shown last, on whichever page it is.
function backToCard() {
  if (opened < first || opened >= first + atOnce()) {
    first = opened - (opened % atOnce());
    drawPage();
  }
  by("grid").querySelector(`[data-image="${found[opened]}"]`).focus();
}

// --- keys and clicks --------------------------------------------------------------------------

function moveFocus(event) {
  const cards = [...by("grid").querySelectorAll("button")];
  const place = cards.indexOf(document.activeElement);
  if (place < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const goal = placeAfter(event.key, place, cards);
  if (goal === place) return;
  event.preventDefault();
  cards[goal].focus();
}

function clear() {
  by("text").value = filter.text = "";
  filter.classes.clear();
  filter.kinds.clear();
  filter.truths.clear();
  setRange(0, 100);
}

let typing = null;
by("text").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => { filter.text = by("text").value.toLowerCase(); update(); }, TYPING);
};
by("low").oninput = readRange;
by("high").oninput = readRange;
by("order").onchange = update;
by("at-once").onchange = update;
by("clear").onclick = clear;
by("filters").onsubmit = (event) => event.preventDefault();
by("previous").onclick = () => turn(-1);
by("next").onclick = () => turn(1);
by("grid").onclick = (event) => {
  const button = event.target.closest("button");
  if (button) showDetails(found.indexOf(Number(button.dataset.image)));
};
by("grid").onkeydown = moveFocus;
by("close").onclick = () => by("details").close();
by("before").onclick = () => showNext(-1);
by("after").onclick = () => showNext(1);
by("details").onclose = backToCard;
by("details").onclick = (event) => { if (event.target === by("details")) by("details").close(); };
by("details").onkeydown = (event) => {
  if (event.key === "ArrowLeft") showNext(-1);
  if (event.key === "ArrowRight") showNext(1);
};

// --- small things -----------------------------------------------------------------------------

function svg(tag, attributes, text = "") {
  const made = document.createElementNS(by("histogram").namespaceURI, tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.textContent = text;
  return made;
}

by("sheet").hidden = n === 0;
update();

// One script for all pages: decisions, charts, sheets of rows, and pictures with outlines.
const data = JSON.parse(by("data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const within = (low, high, value) => Math.min(Math.max(value, low), high);
const following = []; // what is drawn anew when a threshold or a decision changes
const follow = () => following.forEach((draw) => draw());

function counted(n, [one, many]) { return `${count(n)} ${n === 1 ? one : many}`; }

function numberText(value) {
  if (Number.isNaN(value)) return "–";
  return Math.abs(value) >= 99.95 ? count(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function save(name, type, ...parts) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Programs that open tables must not take a name for a formula.
function csvLine(cells) {
  const safe = cells.map((cell) => (/^[=+@\t\r-]/.test(cell) && !/^-?[\d.,]+$/.test(cell) ? `'${cell}` : cell));
  const special = data.comma ? /[";\r\n]/ : /[",\r\n]/;
  return `${safe.map((cell) => (special.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(data.comma ? ";" : ",")}\n`;
}

// --- decisions: what people leave out, reject, accept or draw, by id ---------------------------

const task = data.decisions; // its key in the browser's storage, its file, and how it is written
const initial = new Set(task?.decided);
let decided = new Set(initial);
const past = [];
const isInApp = window.name === "hypervlad-app" && window.parent !== window;
const PATIENCE = 8_000; // ms to wait for the app
let isUnsaved = false;

function change(on, off = []) {
  past.push(new Set(decided));
  off.forEach((id) => decided.delete(id));
  on.forEach((id) => decided.add(id));
  keep(true);
}

function undo() {
  if (!past.length) return;
  decided = past.pop();
  keep(true);
}

function keep(unsaved) {
  isUnsaved = unsaved;
  try {
    localStorage.setItem(task.key, JSON.stringify({ decided: [...decided], unsaved }));
  } catch { /* The browser keeps nothing: decisions last until the page is left. */ }
  follow();
  if (isInApp) window.parent.postMessage(unsaved, "*");
}

// The app keeps it, and says so; if it refuses, or says nothing, a file is downloaded as elsewhere.
async function saveTask(type, text) {
  const before = [...decided].join();
  const isKept = isInApp && await new Promise((resolve) => {
    window.onmessage = ({ source, data: answer }) => { if (source === window.parent) resolve(answer === true); };
    setTimeout(resolve, PATIENCE);
    window.parent.postMessage(text, "*");
  });
  if (!isKept) save(task.file, type, text);
  if ([...decided].join() === before) keep(false);
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(task.key));
    decided = new Set(kept.decided);
    isUnsaved = kept.unsaved;
  } catch { /* Nothing is kept. */ }
}

function showDecisions() {
  const n = task.masks ? all(".reviewed").filter((box) => decided.has(box.dataset.mark)).length : decided.size;
  const saved = n ? `, ${isUnsaved ? "not " : ""}saved` : "";
  by("state").textContent = counted(n, task.words) + (isUnsaved || task.masks ? saved : "") + (task.masks ? lost() : "");
  by("save").disabled = !n && !initial.size;
  by("undo").disabled = !past.length;
  const isSame = decided.size === initial.size && [...initial].every((id) => decided.has(id));
  all(".stale").forEach((note) => { note.hidden = isSame; });
}

// Which images have marks that are not saved, as a person has not said that the rest is right.
function lost() {
  const names = figures.filter((figure) => !decided.has(figure.querySelector(".reviewed").dataset.mark)
    && all(".outlines [data-mark]", figure).some((path) => decided.has(path.dataset.mark))).map((figure) => figure.getAttribute("aria-label"));
  const some = names.slice(0, MAX_NAMED).join(", ") + (names.length > MAX_NAMED ? ` and ${names.length - MAX_NAMED} more` : "");
  const [have, are, they] = names.length > 1 ? ["have", "are", "they are"] : ["has", "is", "it is"];
  return names.length ? `. ${some} ${have} marks but ${are} not reviewed: ${they} not saved` : "";
}

// A line for each decision: of what it is in, and its own cells.
function saveDecisions() {
  const place = (id) => id.split("-").map((part) => part.replace(/^\D+/, "")).map(Number);
  const ids = [...decided].sort((a, b) => place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1]);
  const lines = ids.map((id) => {
    const [first, ...cells] = task.lines[id.split("-")[0]];
    return `${first},${cells[id.split("-")[1]]}\n`;
  });
  saveTask("text/csv", [`${task.header}\n`, ...lines].join(""));
}

// --- charts: histograms with axes ---------------------------------------------------------------

const [LEFT, RIGHT, TOP, BELOW] = [46, 14, 6, 40]; // pixels around the bars
const [MIN_BINS, MAX_BINS] = [8, 40];

function drawn(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.textContent = text;
  return made;
}

function binsFor(n) { return within(MIN_BINS, MAX_BINS, Math.round(2 * Math.sqrt(n))); }

function axisOf(values, { bounds, log = false, n = binsFor(values.length) }) {
  const [least, most] = bounds || [Math.min, Math.max].map((end) => values.reduce((a, b) => end(a, b), values[0] ?? 0));
  const margin = least < most ? 0 : 0.1 * Math.abs(least) || 1;
  const [low, high] = [least - margin, most + margin];
  const isLog = log && low > 0;
  const scaled = isLog ? Math.log : (value) => value;
  const share = (value) => (scaled(value) - scaled(low)) / (scaled(high) - scaled(low));
  return { low, high, n, share, ticks: isLog ? powers(low, high) : multiples(low, high) };
}

function multiples(start, end) {
  const power = 10 ** Math.floor(Math.log10((end - start) / 5));
  const size = power * [1, 2, 5, 10].find((each) => (end - start) / (power * each) <= 8);
  const first = Math.ceil(start / size - 1e-9);
  return Array.from({ length: Math.floor(end / size + 1e-9) - first + 1 },
    (_, k) => Number(((first + k) * size).toPrecision(12)));
}

function powers(start, end) {
  const digits = end / start < 3 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9] : end / start < 1000 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = 10 ** Math.floor(Math.log10(start)); power <= end; power *= 10) {
    found.push(...digits.map((digit) => Number((digit * power).toPrecision(12))));
  }
  return found.filter((value) => value >= start && value <= end);
}

function binOf(axis, value) {
  return within(0, axis.n - 1, Math.floor(axis.n * axis.share(value)));
}

// Bars of stacked series (a style, and pairs of value and weight), with axes and vertical lines.
function histogram(svg, series, axis, { height, label, lines = [] }) {
  const width = Math.max(svg.clientWidth, 120) - LEFT - RIGHT;
  const stacked = new Array(axis.n).fill(0);
  const heights = series.map(([style, pairs]) => {
    const bins = new Array(axis.n).fill(0);
    pairs.forEach(([value, weight]) => { bins[binOf(axis, value)] += weight; });
    return [style, bins];
  });
  const most = Math.max(...stacked.map((_, bin) => sum(heights.map(([, bins]) => bins[bin])))) || 1;
  const x = (share) => LEFT + width * share;
  const y = (weight) => TOP + height * (1 - weight / most);
  const shapes = [];
  heights.forEach(([style, bins]) => bins.forEach((weight, bin) => {
    if (!weight) return;
    shapes.push(drawn("rect", { class: `bar ${style}`,
      x: x(bin / axis.n) + 0.5, width: Math.max(width / axis.n - 1, 0.5),
      y: y(stacked[bin] + weight), height: (height * weight) / most }));
    stacked[bin] += weight;
  }));
  lines.forEach(([style, value]) => {
    const at = x(within(0, 1, axis.share(value)));
    shapes.push(drawn("line", { class: style, x1: at, x2: at, y1: 0, y2: TOP + height }));
  });
  shapes.push(drawn("path", { class: "base", d: `M${LEFT} ${TOP}V${TOP + height}H${LEFT + width}` }));
  const upper = multiples(0, most).at(-1);
  [0, upper].forEach((value) => shapes.push(drawn("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, numberText(value))));
  if (label) {
    const every = Math.ceil(axis.ticks.length / Math.max(width / 48, 2)); // labels must not touch
    axis.ticks.forEach((value, k) => {
      const at = x(axis.share(value));
      shapes.push(drawn("path", { class: "base", d: `M${at} ${TOP + height}v4` }));
      if (k % every === 0) shapes.push(drawn("text", { class: "tick", x: at, y: TOP + height + 17, "text-anchor": "middle" }, numberText(value)));
    });
    shapes.push(drawn("text", { class: "label", x: LEFT + width / 2, y: TOP + height + 34, "text-anchor": "middle" }, label));
  }
  svg.setAttribute("height", TOP + height + (label ? BELOW : 4));
  svg.replaceChildren(...shapes);
}

const limits = data.charts.map(({ threshold }) => threshold?.value);

// How many values are above the threshold, and how many below it.
function outcomeOf({ values, above, below, ends }, limit) {
  const n = values.filter((value) => value >= limit).length;
  const [low, high] = ends[n] ?? [];
  const between = values.length ? `, 95 % interval ${(100 * low).toFixed(1)} to ${percent(high)}` : "";
  return [[above, n, between], [below, values.length - n, ""]].map(([[name, style], number, words]) => {
    const part = values.length ? percent(number / values.length) : "–";
    return element("span", "", element("span", `key ${style}`), `${name}: ${number} of ${values.length} (${part}${words})`);
  });
}

all("[data-chart]").forEach((root) => {
  const number = Number(root.dataset.chart);
  const chart = data.charts[number];
  const { groups, threshold } = chart;
  const outputs = all(".group output", root);
  const values = groups.flatMap((group) => group.values);
  const log = root.querySelector("[name=log]");
  const extent = axisOf(values, {});
  const height = groups.length === 1 ? 160 : threshold ? 56 : 84;
  root.hidden = !values.length;
  if (log) log.checked = extent.low > 0 && extent.high / extent.low > 10;
  following.push(() => {
    const limit = limits[number];
    const bounds = threshold ? [threshold.low, threshold.high] : undefined;
    const n = threshold ? MAX_BINS : binsFor(values.length / groups.length);
    const axis = axisOf(values, { bounds, log: log?.checked, n });
    all(".bars", root).forEach((svg, k) => {
      const { weights, style, modes, above, below } = groups[k];
      const pairs = groups[k].values.map((value, place) => [value, weights ? weights[place] : 1]);
      const series = above
        ? [[below[1], pairs.filter(([value]) => value < limit)], [above[1], pairs.filter(([value]) => value >= limit)]]
        : [[style, pairs]];
      const lines = threshold ? [["threshold", limit]] : modes.map((mode) => ["mode", mode]);
      histogram(svg, series, axis, { height, lines, label: k === groups.length - 1 && chart.label });
      if (above) outputs[k].replaceChildren(...outcomeOf(groups[k], limit));
    });
  });
  if (log) log.onchange = follow;
  root.querySelector(".as-svg").onclick = () => saveFigure(root);
  if (threshold) moveThreshold(root, number, threshold);
});

function moveThreshold(root, number, { value: given, text }) {
  const [slider, field] = all("[type=range], [type=number]", root);
  const move = (value, words) => {
    limits[number] = value;
    slider.setAttribute("aria-valuetext", words);
    root.querySelector(".chosen").textContent = words;
    follow();
  };
  const reset = () => {
    slider.value = given;
    field.value = text;
    move(given, text);
  };
  [[slider, field], [field, slider]].forEach(([own, other]) => {
    own.oninput = () => {
      if (own.value === "") return;
      other.value = own.value;
      move(Number(own.value), own.value);
    };
  });
  root.querySelector(".reset").onclick = reset;
  root.querySelector(".controls").hidden = false;
  reset(); // also where the browser has restored what was typed
}

// All histograms of a chart as one drawing that stands alone, with the colours of this page.
function saveFigure(root) {
  const figure = drawn("svg", { xmlns: "http://www.w3.org/2000/svg", "font-family": "sans-serif" });
  let [top, width] = [0, 0];
  all(".group, .bars", root).forEach((part) => {
    width = Math.max(width, part.clientWidth);
    if (part.matches(".group")) figure.append(drawn("text", { x: LEFT, y: top += 20, "font-size": 13 }, part.innerText));
    else {
      const copy = part.cloneNode(true);
      all("*", copy).forEach((shape, k) => {
        const style = getComputedStyle(all("*", part)[k]);
        ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "opacity"].forEach((name) => shape.setAttribute(name, style.getPropertyValue(name)));
      });
      copy.setAttribute("y", top += 4);
      copy.setAttribute("width", part.clientWidth);
      figure.append(copy);
      top += Number(part.getAttribute("height"));
    }
  });
  figure.setAttribute("viewBox", `0 0 ${width} ${top + 4}`);
  save("histogram.svg", "image/svg+xml", new XMLSerializer().serializeToString(figure));
}

// What pictures say of scores follows the threshold.
following.push(() => {
  all(".call").forEach((call) => { call.textContent = Number(call.dataset.score) >= limits[0] ? call.dataset.above : call.dataset.below; });
});

// --- sheets: rows that are filtered, sorted, and drawn one page at a time ------------------------

const TYPING = 120; // ms without a key before the text is searched for
const FEW = 20; // rows that need no filters
const byText = new Intl.Collator("en", { numeric: true }).compare;
const sheets = all("[data-sheet]").map((root) => sheet(root, data.sheets[root.dataset.sheet]));

function sheet(root, { columns, unit, cards, orders, file, marks, action, links, bars, lists }) {
  const part = (selector) => root.querySelector(selector);
  const names = columns[0].texts;
  const n = names.length;
  const rows = Array.from({ length: n }, (_, row) => row);
  const files = names.map((name) => name.split(/[\\/]/).pop());
  const captions = new Set(files).size < n ? names : files; // with folders only if files of several have one name
  const folded = names.map((name) => name.toLowerCase());
  const classes = columns.filter((column) => column.options);
  const numbers = columns.filter((column) => column.values);
  const stack = classes.find(({ styles }) => styles.length);
  const chosen = new Map(classes.map((column) => [column, new Set()]));
  const filter = { text: "", low: -Infinity, high: Infinity };
  let charted = numbers[0];
  let order = orders.length ? orders[0].slice(1) : null; // as they came
  let found = [];
  let first = 0;

  const codeOf = (column, row) => {
    if (!column.follows) return column.codes[row];
    return Number(columns.find(({ name }) => name === column.follows).values[row] < limits[0]);
  };
  const textOf = (column, row) => (column.options ? column.options[codeOf(column, row)] ?? "" : column.texts[row]);

  // --- filters and order
  const inRange = (row) => {
    if (filter.low === -Infinity && filter.high === Infinity) return true;
    const value = charted.values[row];
    return value !== null && value >= filter.low && value <= filter.high;
  };
  function fitting(without) {
    return rows.filter((row) => folded[row].includes(filter.text) && (without === "range" || inRange(row))
      && classes.every((column) => column === without || !chosen.get(column).size || chosen.get(column).has(codeOf(column, row))));
  }
  function compare(a, b) {
    if (!order) return a - b;
    const [column, isDown] = [columns[order[0]], order[1]];
    const keys = [a, b].map((row) => (column.values ? column.values[row] ?? (isDown ? -Infinity : Infinity) : column.options ? codeOf(column, row) : 0));
    const difference = column.values || column.options ? keys[0] - keys[1] : byText(column.texts[a], column.texts[b]);
    return (isDown ? -difference : difference) || byText(names[a], names[b]) || a - b;
  }
  function update() {
    found = fitting().sort(compare);
    first = 0;
    draw();
  }
  function draw() {
    if (n > FEW || cards) {
      classes.forEach(drawBars);
      if (charted) drawHistogram();
    }
    drawPage();
  }

  // --- a page of cards or of a table
  const atOnce = () => Number(part(".at-once").value);
  function drawPage() {
    const last = Math.min(first + atOnce(), found.length);
    const shown = found.slice(first, last);
    if (cards) part(".grid").replaceChildren(...shown.map(card));
    else part(".rows").replaceChildren(table(shown));
    part(".nothing").hidden = found.length > 0;
    const whole = counted(n, [unit, `${unit}s`]);
    part(".status").textContent = found.length === n ? whole : `${count(found.length)} of ${whole}`;
    part(".pages").hidden = found.length <= atOnce() && !first;
    part(".place").textContent = `${count(first + 1)} – ${count(last)} of ${count(found.length)}`;
    part(".previous").disabled = first === 0;
    part(".next").disabled = last >= found.length;
  }
  function turn(pages) {
    first = Math.max(0, first + pages * atOnce());
    drawPage();
    root.scrollIntoView();
    part(".grid button, .rows button")?.focus({ preventScroll: true });
  }
  function picture(row) {
    const stored = by(`picture-${root.dataset.sheet}-${row}`);
    const img = element("img");
    img.alt = "";
    img.src = `data:image/jpeg;base64,${stored?.textContent}`;
    return stored && img;
  }
  const styleOf = (row) => (stack && stack.styles[codeOf(stack, row)]) || "";
  const dot = (row) => element("span", `dot ${styleOf(row)}`);
  function card(row) {
    const [label, share] = [textOf(classes[0], row), numbers[0].texts[row]];
    // What is usual, such as a true label that was predicted, needs no mark.
    const further = columns.filter((column) => column.shown && textOf(column, row)
      && (column === stack ? styleOf(row) : textOf(column, row) !== textOf(classes[0], row)));
    const words = further.map((column) => `${column.label || ""}${textOf(column, row)}`);
    const made = element("button", `card ${styleOf(row)}`, element("span", "stage", picture(row) || "not shown"),
      element("span", "meter", filled(numbers[0].values[row] / numbers[0].bounds[1])), element("span", "caption",
        element("span", "line", element("span", "class", label), element("span", "share", share)),
        element("span", "file", captions[row]),
        ...further.map((column, k) => element("span", "kind", column === stack ? dot(row) : "", words[k]))));
    made.dataset.row = row;
    made.title = names[row];
    made.setAttribute("aria-label", [names[row], label, share, ...words].join(", "));
    return element("li", "", made);
  }
  function table(shown) {
    const made = element("table");
    const head = made.createTHead().insertRow();
    const hasPictures = shown.some((row) => by(`picture-${root.dataset.sheet}-${row}`));
    if (hasPictures) head.append(element("th"));
    columns.forEach((column, k) => {
      const isOwn = order?.[0] === k;
      const cell = element("th", column.values ? "number" : "", button(() => {
        order = [k, isOwn ? !order[1] : Boolean(column.values)];
        update();
      }, "sort", column.name));
      cell.scope = "col";
      cell.ariaSort = isOwn ? (order[1] ? "descending" : "ascending") : "none";
      head.append(cell);
    });
    if (marks.length) head.append(element("th", "marking", "Mark"));
    const body = made.createTBody();
    shown.forEach((row) => {
      const line = body.insertRow();
      if (hasPictures) line.insertCell().append(picture(row) || "");
      columns.forEach((column, k) => {
        const text = textOf(column, row);
        // A number may only wrap before its interval.
        const link = element(!k && links[row] ? "a" : "span", "", column.values ? text.replace(/ (?!\()/g, "\u00a0") : text);
        if (link.matches("a")) link.href = links[row];
        const isStrong = column.follows && !codeOf(column, row);
        const cell = element(k ? "td" : "th", column.values ? "number" : isStrong ? "strong" : "", link);
        if (!k) cell.scope = "row";
        line.append(cell);
      });
      if (marks.length) line.insertCell().append(marks[row] ? markButton(row) : "");
    });
    return made;
  }
  function markButton(row) {
    const made = element("button", "mark", action);
    made.dataset.row = row;
    press(made, decided.has(marks[row]));
    made.setAttribute("aria-label", `${action}: ${names[row]}`);
    return made;
  }

  // --- one button per value of a class: its number of rows, and whether only these are shown
  function drawBars(column) {
    const values = column.options.map(() => 0);
    fitting(column).forEach((row) => { values[codeOf(column, row)] += 1; });
    const most = Math.max(1, ...values);
    const list = all(".classes", root)[classes.indexOf(column)];
    const focused = list.contains(document.activeElement) && document.activeElement.dataset.value;
    list.replaceChildren(...column.options.map((name, k) => {
      const own = chosen.get(column);
      const made = button(() => { if (!own.delete(k)) own.add(k); update(); }, "valued", ...bar(name, count(values[k]), values[k] / most, column.styles[k]));
      made.dataset.value = k;
      press(made, own.has(k));
      return element("li", "", made);
    }));
    if (focused) list.querySelector(`[data-value="${focused}"]`).focus();
  }

  function drawHistogram() {
    const values = charted.values.filter((value) => value !== null);
    const axis = axisOf(values, { bounds: charted.bounds, n: charted.bounds ? 20 : binsFor(n) });
    const shown = fitting("range").filter((row) => charted.values[row] !== null);
    const series = (stack ? stack.styles : [""]).map((style, code) => [style,
      shown.filter((row) => !stack || codeOf(stack, row) === code).map((row) => [charted.values[row], 1])]);
    const label = `${charted.name}${charted.unit ? ` (${charted.unit})` : ""}`;
    histogram(part(".histogram"), series, axis, { height: 70, label });
    part(".histogram").setAttribute("aria-label", `Number of ${unit}s by ${charted.name}`);
  }
  function clearRange() {
    part(".low").value = part(".high").value = "";
    readRange();
  }
  function readRange() {
    const number = (field, otherwise) => (field.value === "" ? otherwise : Number(field.value));
    filter.low = number(part(".low"), -Infinity);
    filter.high = number(part(".high"), Infinity);
    update();
  }
  // --- controls
  classes.forEach((column) => {
    part(".charted").before(element("fieldset", "", element("legend", "", column.name), element("ul", "classes")));
  });
  part(".charted").hidden = !charted;
  numbers.forEach((column) => {
    const option = element("option", "", column.name);
    option.selected = column === charted;
    part(".column").append(option);
  });
  part(".column").disabled = numbers.length < 2;
  part(".column").onchange = () => { charted = numbers[part(".column").selectedIndex]; clearRange(); };
  orders.forEach(([text]) => part(".order").append(element("option", "", text)));
  part(".order").parentElement.hidden = !cards;
  part(".order").onchange = () => { order = orders[part(".order").selectedIndex].slice(1); update(); };
  let typing = null;
  part(".text").oninput = () => {
    clearTimeout(typing);
    typing = setTimeout(() => { filter.text = part(".text").value.toLowerCase(); update(); }, TYPING);
  };
  part(".low").oninput = readRange;
  part(".high").oninput = readRange;
  part(".at-once").onchange = update;
  part(".clear").onclick = () => {
    part(".text").value = filter.text = "";
    chosen.forEach((own) => own.clear());
    clearRange();
  };
  part(".filters").onsubmit = (event) => event.preventDefault();
  part(".previous").onclick = () => turn(-1);
  part(".next").onclick = () => turn(1);
  part(".as-csv").onclick = () => save(file, "text/csv", csvLine(columns.map(({ name, unit: own }) => (own ? `${name} (${own})` : name))),
    ...found.map((row) => csvLine(columns.map((column) => (data.comma && column.values
      ? textOf(column, row).replace(/,(?=\d)/g, "").replace(/\.(?=\d)/g, ",") : textOf(column, row))))));
  root.classList.toggle("short", n <= FEW && !cards);
  root.hidden = n === 0;
  root.onclick = ({ target }) => {
    const button = target.closest(".card, .mark");
    const link = target.closest("tbody tr")?.querySelector("a[href^='#']");
    if (button?.matches(".mark")) {
      const id = marks[button.dataset.row];
      mark([id], !decided.has(id));
      all(".mark", root).find((each) => each.dataset.row === button.dataset.row)?.focus();
    } else if (button) showDetails(sheets[root.dataset.sheet], found.indexOf(Number(button.dataset.row)));
    else if (link && !getSelection().toString()) {
      window.location.hash = link.hash; // highlights the outline, and the browser leads back
      goTo(by(link.hash.slice(1)));
    }
  };
  part(".grid").onkeydown = (event) => {
    const buttons = all(".card", root);
    const place = buttons.indexOf(document.activeElement);
    if (place < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const goal = placeAfter(event.key, place, buttons);
    if (goal === place) return;
    event.preventDefault();
    buttons[goal].focus();
  };
  update();
  if (columns.some(({ follows }) => follows) || marks.length) following.push(draw);

  // What the dialog shows of a row.
  return {
    names, columns: columns.slice(1), textOf, dot, stack, picture, links, bars, lists,
    found: () => found,
    backTo(place) {
      if (place < first || place >= first + atOnce()) {
        first = place - (place % atOnce());
        drawPage();
      }
      part(`.grid [data-row="${found[place]}"]`).focus();
    },
  };
}

function bar(name, number, share, dot = "") {
  return [filled(share), dot && element("span", `dot ${dot}`), element("span", "name", name), element("span", "number", number)];
}

// --- all of a row, in a dialog ------------------------------------------------------------------

let opened = null; // a sheet, and a place among its rows found

function showDetails(of, place) {
  opened = { of, place };
  const row = of.found()[place];
  by("details-name").textContent = of.names[row];
  by("details-picture").replaceChildren(of.picture(row) || "not shown");
  by("details-facts").replaceChildren(...of.columns.flatMap((column) => {
    const text = of.textOf(column, row);
    return text ? [element("dt", "", column.name), element("dd", "", column === of.stack ? of.dot(row) : "", text)] : [];
  }));
  const order = of.bars ? of.bars.values[row].map((_, k) => k).sort((a, b) => of.bars.values[row][b] - of.bars.values[row][a]) : [];
  by("details-bars").replaceChildren(...order.map((k) => element("li", "valued", ...bar(of.bars.names[k], percent(of.bars.values[row][k]), of.bars.values[row][k]))));
  by("details-lists").replaceChildren(...of.lists.flatMap(({ title, entries, places }) => [
    element("h3", "", title), element("ol", "", ...places[row].map((k) => element("li", "", entries[k])))]));
  by("original").hidden = !of.links[row];
  by("original").href = of.links[row] || "";
  by("details-place").textContent = `${count(place + 1)} of ${count(of.found().length)}`;
  by("before").disabled = place === 0;
  by("after").disabled = place === of.found().length - 1;
  if (!by("details").open) by("details").showModal();
}

function showNext(steps) {
  const place = opened.place + steps;
  if (place >= 0 && place < opened.of.found().length) showDetails(opened.of, place);
}

if (by("details")) {
  by("close").onclick = () => by("details").close();
  by("before").onclick = () => showNext(-1);
  by("after").onclick = () => showNext(1);
  by("details").onclose = () => opened.of.backTo(opened.place);
  by("details").onclick = (event) => { if (event.target === by("details")) by("details").close(); };
  by("details").onkeydown = (event) => {
    if (event.key === "ArrowLeft") showNext(-1);
    if (event.key === "ArrowRight") showNext(1);
  };
}

// --- pictures: switches, outlines that are marked, and outlines that are drawn -------------------

const MIN_DRAG = 4; // pixels of the screen
const MAX_NAMED = 5; // images
const REACH = 10; // pixels of the screen around a click on a line
const figures = all(".field");
const marked = new Map(all(".outlines [data-mark]").map((path) => [path.dataset.mark, path]));
let drawing = null; // the figure in which outlines are drawn
let line = null; // what is being drawn: its path and points

// Mark outlines or rows: that the rest of an image is right, a person says.
function mark(ids, isOn) { change(isOn ? ids : [], isOn ? [] : ids); }

// Outlines that are drawn have the ids FIGURE+PATH.
const drawnIn = (figure) => [...decided].filter((id) => id.startsWith(`${figure.id}+`));
const pathIn = (id) => id.slice(id.indexOf("+") + 1);

function addDrawn(figure, d) {
  const path = drawn("path", { class: "drawn", d, role: "button", tabindex: 0, "aria-label": "Missed defect, drawn here: remove", "data-mark": `${figure.id}+${d}` });
  figure.querySelector(".outlines").append(path);
  return path;
}

following.push(() => {
  marked.forEach((path, id) => { press(path, decided.has(id)); });
  all(".reviewed").forEach((box) => { box.checked = decided.has(box.dataset.mark); });
  if (!task?.masks) return;
  all(".drawn").forEach((path) => { if (!decided.has(path.dataset.mark)) path.remove(); });
  figures.forEach((figure) => drawnIn(figure).forEach((id) => {
    if (!all(".drawn", figure).some((path) => path.dataset.mark === id)) addDrawn(figure, pathIn(id));
  }));
});

function click(figure, target, event = {}) {
  const path = target.closest(".outlines [role=button]") || nearest(figure, event);
  if (target.matches(".none")) {
    const [ids, own] = [all(".region", figure).map(({ dataset }) => dataset.mark), drawnIn(figure)];
    const isUndone = !own.length && ids.every((id) => decided.has(id));
    change([figure.querySelector(".reviewed").dataset.mark, ...(isUndone ? [] : ids)], isUndone ? ids : own);
  } else if (path) {
    const { mark: id, with: fibre } = path.dataset;
    const same = fibre && event.shiftKey ? all(`[data-with="${fibre}"]`, figure) : [path];
    mark(same.map(({ dataset }) => dataset.mark), !decided.has(id));
  }
}

// The line that is nearest to the mouse.
function nearest(figure, event) {
  const svg = figure.querySelector(".lines");
  if (!svg || event.clientX === undefined) return null;
  const [x, y, scale] = placeOf(figure, event);
  let [least, found] = [REACH / scale, null];
  for (const path of svg.children) {
    const [x1, y1, x2, y2] = path.getAttribute("d").match(/-?[\d.]+/g).map(Number);
    const along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2);
    const t = within(0, 1, along);
    const distance = Math.hypot(x1 + t * (x2 - x1) - x, y1 + t * (y2 - y1) - y);
    if (distance < least) [least, found] = [distance, path];
  }
  return found;
}

function draw(figure) {
  drawing = drawing === figure ? null : figure;
  figures.forEach((each) => {
    press(each.querySelector(".draw"), each === drawing);
    each.querySelector(".picture").classList.toggle("drawing", each === drawing);
  });
  if (!drawing) return;
  const outlines = document.querySelector(".legend [data-key=o]");
  if (!outlines.checked) outlines.click();
}

function goTo(outline) {
  outline?.scrollIntoView({ block: "center" });
  outline?.focus({ preventScroll: true });
}

all(".legend").forEach((legend) => {
  legend.hidden = false;
  legend.onchange = ({ target }) => {
    all(`.field ${target.dataset.shows}`).forEach((shape) => shape.toggleAttribute("hidden", !target.checked));
  };
});

document.onkeydown = (event) => {
  if (event.altKey || event.metaKey || event.target.matches("select, input:not([type=checkbox], [type=range])")) return;
  const key = event.key.toLowerCase();
  const shown = document.querySelector(`.legend [data-key="${CSS.escape(key)}"]`);
  if (task && key === "u") undo();
  else if (event.ctrlKey) return;
  else if (shown) shown.click();
  else if (key === "escape" && drawing) draw(drawing);
  else if (["n", "p"].includes(key)) step(key === "n" ? 1 : -1);
  else if (["Enter", " "].includes(event.key) && event.target.matches(".outlines [role=button]")) {
    event.preventDefault();
    click(event.target.closest(".field"), event.target);
  }
};

// To the next outline, from the one that has the focus.
function step(steps) {
  const paths = all(".outlines [role=button]").filter((path) => path.checkVisibility());
  const place = paths.indexOf(document.activeElement);
  goTo(paths[place < 0 ? 0 : place + steps]);
}

// Where the mouse is, in the units of outlines, and the size of one on the screen.
function placeOf(figure, { clientX, clientY }) {
  const { a, d, e, f } = figure.querySelector(".outlines").getScreenCTM();
  return [(clientX - e) / a, (clientY - f) / d, a];
}

function pointOf(figure, event) {
  const place = placeOf(figure, event);
  return sizeOf(figure).map((length, axis) => within(0, 2 * length, Math.round(place[axis])));
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
  const made = line?.path;
  line = null;
  if (!made) return;
  const d = made.getAttribute("d");
  made.remove();
  if (!isCancelled && maskOf(figure, [d]).includes(255)) mark([`${figure.id}+${d}`], true);
}

figures.forEach((figure) => {
  const picture = figure.querySelector(".picture");
  figure.onclick = (event) => { if (task) click(figure, event.target, event); };
  if (!task?.masks) return;
  figure.querySelector(".draw").onclick = () => draw(figure);
  const box = figure.querySelector(".reviewed");
  box.onchange = () => change(box.checked ? [box.dataset.mark] : [], box.checked ? [] : [box.dataset.mark]);
  picture.onpointerdown = (event) => start(figure, event);
  picture.onpointermove = (event) => move(figure, event);
  picture.onpointerup = () => finish(figure, false);
  picture.onpointercancel = () => finish(figure, true);
  picture.ondragstart = (event) => event.preventDefault();
});

// --- masks of reviewed images, in one file: COCO, whose run lengths are exact ---------------------

const sizeOf = (figure) => figure.dataset.size.split(" ").map(Number); // width and height

// A mask, row by row: 255 where the centre of a pixel is inside an outline in half pixels.
function maskOf(figure, paths) {
  const [width, height] = sizeOf(figure);
  const mask = new Uint8Array(width * height);
  paths.forEach((d) => fill(mask, width, d));
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

// Lengths of runs of 0 and 255 in turn, column by column, as in COCO.
function runsOf(mask, width, height) {
  const counts = [0];
  for (let k = 0; k < mask.length; k += 1) {
    const inside = mask[(k % height) * width + Math.floor(k / height)] > 0;
    if (inside !== (counts.length % 2 === 0)) counts.push(0);
    counts[counts.length - 1] += 1;
  }
  return counts;
}

function saveMasks() {
  const reviewed = figures.filter((figure) => figure.querySelector(".reviewed").checked);
  const images = reviewed.map((figure, id) => {
    const [width, height] = sizeOf(figure);
    return { id, file_name: figure.getAttribute("aria-label"), width, height };
  });
  const annotations = reviewed.map((figure, id) => {
    const regions = all(".region", figure).filter(({ dataset }) => !decided.has(dataset.mark));
    const paths = [...regions.map((path) => path.getAttribute("d")), ...drawnIn(figure).map(pathIn)];
    const [width, height] = sizeOf(figure);
    const counts = runsOf(maskOf(figure, paths), width, height);
    return { id: id + 1, image_id: id, category_id: 1, segmentation: { size: [height, width], counts } };
  }).filter(({ segmentation }) => segmentation.counts.length > 1); // those with defects
  const categories = [{ id: 1, name: "defect" }];
  const shown = figures.map((figure) => figure.getAttribute("aria-label"));
  saveTask("application/json", JSON.stringify({ info: { shown }, images, annotations, categories }));
}

// ------------------------------------------------------------------------------------------------

if (task) {
  restore();
  following.push(showDecisions);
  by("save").onclick = task.masks ? saveMasks : saveDecisions;
  by("undo").onclick = undo;
  window.onbeforeunload = (event) => {
    if (!isUnsaved) return;
    event.preventDefault();
    event.returnValue = true; // for older browsers
  };
}
document.documentElement.classList.add("scripted");
window.onresize = follow;
follow();

// Histograms, and places that are left out by a click: what is computed from them follows.
const { unit, images, modes } = JSON.parse(by("data").textContent);
const [MIN_BINS, MAX_BINS, REACH] = [8, 40, 10]; // of the histogram; pixels around a click
const all = (selector) => [...document.querySelectorAll(selector)];
images.forEach((image) => { image.out = new Set(image.left_out); });

function numberText(value) {
  return value >= 99.95 ? count(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function placesText(n) { return `${count(n)} place${n === 1 ? "" : "s"}`; }

// The places that count, as pairs of diameter and weight.
function kept(image) {
  const pairs = image.diameters.map((diameter, place) => [diameter, image.weights[place]]);
  return pairs.filter((_, place) => !image.out.has(place));
}

// As `weighted_quantiles` in mixture.py.
function median(pairs) {
  const sorted = [...pairs].sort((a, b) => a[0] - b[0]);
  const half = sorted.reduce((sum, pair) => sum + pair[1], 0) / 2;
  let [before, held, last] = [-Infinity, 0, sorted[0]];
  for (const pair of sorted) {
    const middle = held + pair[1] / 2;
    if (middle >= half) {
      const share = before === -Infinity ? 1 : (half - before) / (middle - before);
      return last[0] + share * (pair[0] - last[0]);
    }
    [before, held, last] = [middle, held + pair[1], pair];
  }
  return last ? last[0] : NaN;
}

// --- groups -----------------------------------------------------------------------------------

function groupMedian(own) {
  const parts = new Map();
  own.forEach((image) => parts.set(image.part, [...(parts.get(image.part) || []), ...kept(image)]));
  const logs = [...parts.values()].filter((pairs) => pairs.length).map(median).map(Math.log);
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
}

const grouped = modes.map((_, group) => images.filter((image) => image.group === group));
const every = grouped.flat().flatMap((image) => image.diameters);
const binned = Math.round(2 * Math.sqrt(every.length / grouped.length));
const nBins = Math.min(Math.max(binned, MIN_BINS), MAX_BINS);
const [low, high] = [Math.min, Math.max].map((end) => every.reduce((a, b) => end(a, b), every[0]));

function drawCharts() {
  if (!every.length) return;
  const scaled = by("log").checked ? Math.log : (value) => value;
  const [start, end] = low < high ? [low, high] : [0.9 * low, 1.1 * high];
  const share = (value) => (scaled(value) - scaled(start)) / (scaled(end) - scaled(start));
  grouped.forEach((own, group) => drawChart(own.flatMap(kept), group, share));
  const ticks = by("log").checked ? powers(start, end) : multiples(start, end);
  all("#chart .axis")[0].replaceChildren(...ticks.flatMap((value) => {
    const at = `${100 * share(value)}%`;
    const text = drawn("text", { x: at, y: 18 });
    text.textContent = numberText(value);
    return [drawn("line", { x1: at, x2: at, y1: 0, y2: 5 }), text];
  }));
}

function drawChart(pairs, group, share) {
  const bins = new Array(nBins).fill(0);
  pairs.forEach(([diameter, weight]) => {
    bins[Math.min(Math.floor(nBins * share(diameter)), nBins - 1)] += weight;
  });
  const scale = 96 / Math.max(...bins, 1e-9);
  const rects = bins.map((weight, bin) => drawn("rect", {
    x: (1000 * bin) / nBins + 1, width: 1000 / nBins - 2,
    y: 99 - scale * weight, height: scale * weight,
  }));
  const lines = (modes[group].length > 1 ? modes[group] : []).map((mode) => {
    const at = 1000 * share(mode);
    return drawn("line", { class: "mode", x1: at, x2: at, y1: 0, y2: 100 });
  });
  const base = drawn("line", { class: "base", x1: 0, x2: 1000, y1: 99.5, y2: 99.5 });
  all("#chart .bars")[group].replaceChildren(...rects, base, ...lines);
  all("#chart .group .median")[group].textContent = numberText(groupMedian(grouped[group]));
  all("#chart .group .places")[group].textContent = placesText(pairs.length);
}

function multiples(start, end) {
  const power = 10 ** Math.floor(Math.log10((end - start) / 5));
  const size = power * [1, 2, 5, 10].find((each) => (end - start) / (power * each) <= 8);
  const first = Math.ceil(start / size);
  return Array.from({ length: Math.floor(end / size) - first + 1 }, (_, k) => (first + k) * size);
}

function powers(start, end) {
  const digits = end / start < 3 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9] : [1, 2, 5];
  const found = [];
  for (let power = 10 ** Math.floor(Math.log10(start)); power <= end; power *= 10) {
    found.push(...digits.map((digit) => digit * power));
  }
  return found.filter((value) => value >= start && value <= end);
}

function drawn(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

// --- pictures ---------------------------------------------------------------------------------

all("figure[data-image]").forEach((figure) => {
  const image = images[figure.dataset.image];
  const svg = figure.querySelector(".outlines");
  const lines = image.ends.map(([[y1, x1], [y2, x2]]) => (
    drawn("path", { d: `M${x1} ${y1}L${x2} ${y2}` })));
  lines.forEach((line, place) => line.classList.toggle("out", image.out.has(place)));
  svg.replaceChildren(...lines);
  svg.onclick = (event) => {
    const place = nearest(image, svg, event);
    if (place < 0) return;
    const isOut = !image.out.has(place);
    image.fibres.forEach((fibre, each) => {
      if (each !== place && !(event.shiftKey && fibre === image.fibres[place])) return;
      lines[each].classList.toggle("out", isOut);
      image.out[isOut ? "add" : "delete"](each);
    });
    follow(figure.dataset.image);
  };
  svg.onmousemove = (event) => {
    const place = nearest(image, svg, event);
    figure.title = place < 0 ? "" : `${numberText(image.diameters[place])} ${image.unit}`;
  };
});

// The place whose line is nearest to the mouse, or -1.
function nearest(image, svg, event) {
  const { a: scale, e: left, f: top } = svg.getScreenCTM();
  const [x, y] = [(event.clientX - left) / scale, (event.clientY - top) / scale];
  const distances = image.ends.map(([[y1, x1], [y2, x2]]) => {
    const length = (x2 - x1) ** 2 + (y2 - y1) ** 2;
    const along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length;
    const t = Math.min(Math.max(along, 0), 1);
    return Math.hypot(x1 + t * (x2 - x1) - x, y1 + t * (y2 - y1) - y);
  });
  const least = distances.reduce((a, b) => Math.min(a, b), REACH / scale);
  return distances.indexOf(least);
}

function follow(number) {
  const pairs = kept(images[number]);
  const text = pairs.length ? `${numberText(median(pairs))} ${images[number].unit}` : "–";
  all(`[data-image="${number}"] .median`)[0].textContent = text;
  all(`[data-image="${number}"] .places`)[0].textContent = placesText(pairs.length);
  const nOut = images.reduce((sum, image) => sum + image.out.size, 0);
  by("state").textContent = nOut ? `${placesText(nOut)} left out` : "";
  const changed = images.some((image) => image.out.size !== image.left_out.length
    || image.left_out.some((place) => !image.out.has(place)));
  all(".stale").forEach((note) => { note.hidden = !changed; });
  by("save").disabled = !changed;
  drawCharts();
}

by("save").onclick = () => {
  const lines = images.flatMap((image) => [...image.out].sort((a, b) => a - b).map((place) => {
    const [[y1, x1], [y2, x2]] = image.ends[place];
    return `${image.cell},${((x1 + x2) / 2).toFixed(2)},${((y1 + y2) / 2).toFixed(2)}\n`;
  }));
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(["path,x_px,y_px\n", ...lines], { type: "text/csv" }));
  link.download = "choice.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};

if (every.length) {
  by("log").checked = high / low > 10;
  by("log").onchange = drawCharts;
  by("scale").hidden = false;
}
drawCharts();

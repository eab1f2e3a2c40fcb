// What commands do for the page of outlines: particles are found, learnt and counted, one task at a
// time, in a process that the server watches.
const BUSY_POLL = 700; // ms between questions how far the task is

let state = { task: {}, results: [] }; // as the server has answered
let earlier = null; // outlines of the open image before others were found, while they are shown
let taken = null; // choices that the page has taken over from the server
let asking = 0; // the timer of the next question
let ended = ""; // state and kind of the task as shown last

const RESULTS = [
  ["report/report.html", "Report", "figures, values with intervals, methods"],
  ["particles.html", "Page", "counts, sizes, and images with their outlines"],
  ["report/figure.svg", "Figure, SVG", "also as:", "report/figure.pdf", "PDF", "report/figure.png", "PNG"],
  ["counts.csv", "Counts, CSV", "one line per class"],
  ["report/results.csv", "Values of the report, CSV", "with sources"],
  ["particles.csv", "Particles, CSV", "one line per particle, with its measures"],
  ["fields.csv", "Images, CSV", "one line per image"],
  ["outlines.zip", "Outlines, ZIP", "a label image for each image"],
  ["report/methods.txt", "Methods, text", "sentences for a paper"],
];

async function request(path, body) {
  try {
    return await post(path, body);
  } catch (error) {
    showTrouble(error.message.replace(/^Not saved: /, ""), false);
    return null;
  }
}

// Take over the state; return whether what is open has to be opened anew.
function takeState(answer) {
  const isOther = answer.generation !== state.generation || answer.is_found !== state.is_found;
  state = answer;
  document.querySelector("main").dataset.found = String(state.is_found);
  if (JSON.stringify(taken) !== JSON.stringify(state.finder)) {
    taken = state.finder;
    by("polarity").querySelector("[value=model]").hidden = taken.polarity !== "model";
    by("polarity").value = taken.polarity;
    by("least").value = taken.min_area;
    by("size").value = taken.pixel_size || "";
    showLeast();
  }
  const n = images.filter((each) => each.is_done).length;
  const isRunning = state.task.state === "running";
  by("learn").disabled = isRunning || !n;
  by("results").disabled = by("search").disabled = by("find").disabled = isRunning;
  by("before").hidden = by("changes").hidden = !state.earlier;
  by("folder").textContent = state.folder;
  showTask();
  if (isRunning) askSoon();
  if (isOther) {
    earlier = null;
    press(by("before"), false);
    document.querySelectorAll("[data-when]").forEach((each) => { each.hidden = (each.dataset.when === "found") !== state.is_found; });
    by("search").setAttribute("aria-expanded", "false");
  }
  return isOther;
}

function askSoon() {
  clearTimeout(asking);
  asking = setTimeout(refresh, BUSY_POLL);
}

function showTask() {
  const { kind, step, done, total, left, lines = [] } = state.task;
  const now = state.task.state;
  by("task").hidden = !now;
  if (!now) { ended = ""; return; }
  const isRunning = now === "running";
  by("task").dataset.state = now;
  const title = {
    running: `${step}…`,
    done: { find: "Particles are found.", learn: "Learnt, and particles found anew.", results: "The results are written." }[kind],
    stopped: "Stopped. What is done is kept.",
    failed: "This did not work:",
  };
  by("task-step").textContent = title[now];
  by("task-bar").hidden = !isRunning;
  if (total) { by("task-bar").max = total; by("task-bar").value = done; } else by("task-bar").removeAttribute("value");
  by("task-left").textContent = isRunning && total ? `${count(done)} of ${count(total)}${left && left !== "?" ? `, ${left} left` : ""}` : "";
  const said = isRunning || (now === "done" && kind === "learn") ? [] : lines; // which "Changes" shows
  by("task-lines").textContent = said.join("\n");
  by("task-lines").hidden = !said.length;
  by("stop").hidden = !isRunning;
  by("go-on").hidden = isRunning || now === "done";
  by("go-on").textContent = now === "failed" ? "Try again" : "Continue";
  by("close-task").hidden = isRunning;
  if (ended === `running ${kind}` && now === "done") {
    if (kind === "learn") showChanges();
    if (kind === "results") showResults();
  }
  ended = `${now} ${kind}`;
}

async function begin(kind, choices = {}) {
  by("sheet").close();
  const answer = await request(`start/${kind}`, choices);
  if (!answer) return;
  hideTrouble();
  ended = `running ${kind}`;
  takeState(answer);
  refresh();
}

function choices() { return { polarity: by("polarity").value, min_area: Number(by("least").value) }; }

function find() {
  if (by("find").disabled || !by("least").reportValidity()) return;
  begin("find", { ...choices(), pixel_size: by("size").value });
}

async function preview() {
  if (!shown || state.is_found || by("preview").disabled) return;
  if (shown.version < 0) { say(by("wait").textContent); return; }
  const { id } = shown;
  by("preview").disabled = true;
  say("looking for particles in this image…");
  const answer = by("least").reportValidity() && await request("preview", { image: id, ...choices() });
  by("preview").disabled = false;
  if (!answer || shown.id !== id) return;
  takeOutlines(answer);
  showAll();
  say(answer.message);
}

function showLeast() {
  const area = Number(by("least").value);
  const across = 2 * Math.sqrt(area / Math.PI);
  const nm = shown?.pixel_size || Number(by("size").value.replace(",", "."));
  by("least-about").textContent = area > 0 ? `pixels, ${across.toPrecision(2)} across${nm ? `, ${diameter(across * nm).replace(" across", "")}` : ""}` : "pixels";
}

function showImages() { // before anything is found
  const n = images.length;
  const read = images.filter((each) => "pixel_size" in each || each.error);
  const wrong = images.filter(({ error }) => error).length;
  const without = read.filter(({ error, pixel_size: size }) => !error && !size).length;
  const words = [`${count(n)} image${n === 1 ? "" : "s"}`];
  if (read.length < n) words.push(`${count(read.length)} looked at`);
  if (without) words.push(`${count(without)} without a pixel size`);
  if (wrong) words.push(`${count(wrong)} unreadable`);
  by("progress").textContent = words.join(" · ");
  document.title = `${words[0]} – hypervlad`;
  for (const { id, error, pixel_size: size } of images) {
    const about = error ? "unreadable" : size ? `${Number(size.toPrecision(4))} nm per pixel` : size === null ? "no pixel size" : "";
    rows.get(id).lastChild.textContent = about;
    if (error) rows.get(id).title = error;
  }
  if (read.length < n) askSoon();
}

// --- the dialog -------------------------------------------------------------------------------

function openSheet(title, content, ...actions) {
  if (by("dialog").open) return;
  by("sheet-title").textContent = title;
  by("sheet-content").replaceChildren(...content);
  by("sheet-actions").replaceChildren(...actions, button(() => by("sheet").close(), "", "Close"));
  if (!by("sheet").open) by("sheet").showModal();
}

function openLearn() {
  const n = images.filter((each) => each.is_done).length;
  if (by("learn").disabled) { say(n ? "another task is running" : "correct all outlines of an image first, or of several, and mark it as done"); return; }
  const passes = element("select");
  passes.id = "passes";
  for (const [value, words] of [[14, "thorough: 14 passes"], [7, "half as long: 7 passes"], [1, "only to try: 1 pass"]]) {
    const option = element("option", "", words);
    option.value = value;
    passes.append(option);
  }
  const learn = button(() => begin("learn", { n_epochs: Number(passes.value) }), "primary", "Learn");
  learn.autofocus = true;
  openSheet(`Learn from ${count(n)} image${n === 1 ? "" : "s"} that ${n === 1 ? "is" : "are"} done`, [
    element("p", "", `A model learns from ${n === 1 ? "this image, in which" : "these images, in each of which"} all particles must be outlined. Then particles are found anew in the others. Those that you have edited stay as they are, and what was found before is kept.`),
    element("p", "soft", n < 4 ? "From four images on, it is measured how well images are outlined that the model has not learnt." : "It takes minutes; you can go on meanwhile."),
    element("label", "", "Training ", passes),
  ], learn);
}

function showChanges() {
  if (!state.earlier) return;
  const { changes, lines, n_kept: nKept } = state.earlier;
  const table = element("table", "", element("thead", "", element("tr", "", ...["Image", "Before", "Now"].map((each) => element("th", "", each)))));
  const body = element("tbody");
  for (const [name, before, now] of changes) {
    const row = element("tr", "", element("td", "", button(() => openBefore(name), "link", name)), element("td", "number", count(before)), element("td", "number", count(now)));
    if (before !== now) row.className = "other";
    body.append(row);
  }
  table.append(body);
  const said = lines.filter((each) => !each.startsWith("warning:"));
  const warned = lines.filter((each) => each.startsWith("warning:"));
  openSheet("Outlines before and now", [
    ...said.map((each) => element("p", "", each)),
    ...(nKept ? [element("p", "", `${count(nKept)} edited image${nKept === 1 ? "" : "s"} kept as ${nKept === 1 ? "it is" : "they are"}.`)] : []),
    ...(warned.length ? [element("pre", "", warned.join("\n"))] : []),
    table,
  ], button(takeBack, "", "Take back: outlines as before"));
}

function openBefore(name) {
  by("sheet").close();
  inLine(() => open(images.find((each) => each.name === name)?.id)).then(() => showBefore(true));
}

async function takeBack({ target }) {
  target.disabled = true; // measuring may take a while
  const answer = await request("take_back", { folder: state.earlier.folder });
  by("sheet").close();
  if (!answer) return;
  await refresh();
  say("the outlines are as they were before; edited images are as you have left them");
}

async function showBefore(isOn = !earlier) {
  if (by("before").hidden) return;
  const { id } = shown;
  const answer = isOn ? await request("earlier", { image: id }) : null;
  if (shown.id !== id) return;
  earlier = answer ? answer.outlines.map((each) => pathOf(each.rings)) : null;
  press(by("before"), Boolean(earlier));
  say(earlier ? "the outlines before are dashed" : "");
  draw();
}

function paintEarlier(lines) {
  lines.setLineDash([4 / view.scale, 3 / view.scale]);
  for (const { path } of earlier) {
    for (const [colour, width] of [["rgb(0 0 0 / 70%)", 3], ["#ffffff", 1.5]]) {
      lines.strokeStyle = colour;
      lines.lineWidth = width / view.scale;
      lines.stroke(path);
    }
  }
  lines.setLineDash([]);
}

function openResults() {
  if (by("results").disabled) return;
  if (state.is_current && state.results.length) showResults();
  else begin("results");
}

function showResults() {
  const link = (file, name) => {
    const made = element("a", "", name);
    made.href = `results/${file.split("/").map(encodeURIComponent).join("/")}`;
    made.target = "_blank";
    made.rel = "noopener";
    return made;
  };
  const list = element("ul", "files");
  for (const [file, name, about, ...others] of RESULTS) {
    if (!state.results.includes(file)) continue;
    const item = element("li", "", link(file, name), element("span", "soft", about));
    for (let i = 0; i < others.length; i += 2) item.append(link(others[i], others[i + 1]));
    list.append(item);
  }
  openSheet("Results", [
    list, element("p", "soft", `All files are in ${state.folder}/results.`),
    ...(state.is_current ? [] : [element("p", "", "Outlines have changed since: make them again.")]),
  ], button(() => begin("results"), "", "Make again"));
  by("sheet-content").querySelector("a")?.focus();
}

// --- keys and the rest ------------------------------------------------------------------------

async function stop() { const answer = await request("stop", {}); if (answer) takeState(answer); }

async function closeTask() { const answer = await request("forget", {}); if (answer) takeState(answer); }

function toggleSearch() {
  if (by("search").hidden || by("search").disabled) return;
  const isOpen = by("choices-of-search").toggleAttribute("hidden") === false;
  by("search").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) by("polarity").focus();
}

function taskActions() {
  return state.is_found
    ? { l: openLearn, t: openResults, b: () => showBefore(), k: showChanges, g: toggleSearch }
    : { p: preview, g: find };
}

by("choices-of-search").onsubmit = (event) => { event.preventDefault(); find(); };
by("preview").onclick = preview;
by("search").onclick = toggleSearch;
by("learn").onclick = openLearn;
by("results").onclick = openResults;
by("before").onclick = () => showBefore();
by("changes").onclick = showChanges;
by("stop").onclick = stop;
by("go-on").onclick = () => {
  const { kind, state: now } = state.task;
  if (kind === "find" && now === "failed") find(); // with what has been changed since
  else begin(kind, state.task.choices);
};
by("close-task").onclick = closeTask;
by("least").oninput = by("size").oninput = showLeast;

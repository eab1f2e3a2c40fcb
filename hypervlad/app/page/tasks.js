// What the page of outlines has of tasks: particles are found, learnt and counted, in a process that
// the server watches; choices before anything is found, and outlines of before.
let state = { task: {} }; // as the server has answered
const layers = {}; // by name, paths over the open image: its outlines before others were found, what finding leaves out
let taken = null; // choices that the page has taken over from the server

// Take over the state; return whether what is open has to be opened anew.
function takeState(answer) {
  const isOther = answer.generation !== state.generation || answer.is_found !== state.is_found;
  state = answer;
  document.querySelector("main").dataset.found = String(state.is_found);
  if (JSON.stringify(taken) !== JSON.stringify(state.finder)) {
    taken = state.finder;
    by("polarity").querySelector("[value=model]").hidden = taken.polarity !== "model";
    for (const [name, value] of Object.entries(taken)) by("choices-of-search").elements[name].value = value;
    showLeast();
  }
  by("before").hidden = by("changes").hidden = !state.has_earlier;
  if (isOther) {
    layers.before = null;
    passed.clear();
    press(by("before"), false);
    document.querySelectorAll("[data-when]").forEach((each) => { each.hidden = (each.dataset.when === "found") !== state.is_found; });
    by("search").setAttribute("aria-expanded", "false");
  }
  const has = showBanner(answer);
  if (has === "learn") openSheet("changes");
  if (has === "results") openSheet("results");
  return isOther;
}

// Why a button does nothing now, for a pointer above it, and for screen readers.
function showWhys() {
  const isRunning = state.task.state === "running" ? "another task is running: wait until it ends, or stop it" : "";
  const isNone = images.some((each) => each.is_done) ? "" : "Correct all outlines of an image first, or of several, and mark it as done (D): only those are learnt.";
  for (const [name, why] of [["learn", isRunning || isNone], ["results", isRunning], ["search", isRunning], ["find", isRunning]]) {
    by(name).setAttribute("aria-disabled", String(Boolean(why)));
    by(name).title = why;
  }
}

function isRefused(name) { // and says why
  const { title } = by(name);
  if (title) say(title);
  return Boolean(title);
}

function find() { if (!isRefused("find") && by("least").reportValidity()) by("choices-of-search").requestSubmit(); }

async function preview() {
  if (!shown || state.is_found) return;
  const why = by("preview").disabled ? "another preview is being made: wait for it" : shown.version < 0 && by("wait").textContent;
  if (why) { say(why); return; }
  const { id } = shown;
  by("preview").disabled = true;
  say("looking for particles in this image…");
  const { polarity, min_area: area } = valuesOf(by("choices-of-search"));
  const answer = by("least").reportValidity() && await request("preview", { image: id, polarity, min_area: area, middle: middleShares() });
  by("preview").disabled = false;
  if (polarity !== by("polarity").value || area !== Number(by("least").value)) { preview(); return; } // changed meanwhile
  if (shown.id !== id) return;
  if (answer) takeOutlines(answer);
  shown.part = answer?.part;
  showAll();
  say(answer?.message ?? "");
}

function showLeast() {
  const area = Number(by("least").value);
  const across = 2 * Math.sqrt(area / Math.PI);
  const nm = shown?.pixel_size;
  by("least-about").textContent = area > 0 ? `pixels, ${across.toPrecision(2)} across${nm ? `, ${diameter(across * nm).replace(" across", "")}` : ""}` : "pixels";
}

async function openResults() {
  if (isRefused("results")) return;
  const answer = await request("sheet/results");
  if (answer?.is_current) showSheet(answer);
  else if (answer) act("start/results", {});
}

// Draw over the open image what the server answers, or not any more: its button has the same name.
async function showLayer(name, isOn = !layers[name], isSaid = true) {
  const { id } = shown;
  if (by(name).hidden || id < 0) return;
  const answer = isOn ? await request(name, { image: id }) : null;
  if (shown.id !== id) return;
  layers[name] = answer?.outlines.map((each) => pathOf(each.rings).path);
  press(by(name), Boolean(answer));
  if (isSaid) say(answer?.message ?? "");
  draw();
}

function paintLayers(lines) {
  lines.setLineDash([4 / view.scale, 3 / view.scale]);
  for (const [name, paths] of Object.entries(layers)) {
    for (const path of paths ?? []) {
      if (name === "left_out") Object.assign(lines, { fillStyle: "rgb(120 90 200 / 40%)" }).fill(path, "evenodd");
      strokeTwice(lines, path, "#ffffff", 1.5);
    }
  }
  lines.setLineDash([]);
}

// --- keys and the rest ------------------------------------------------------------------------

function toggleSearch() {
  if (by("search").hidden || isRefused("search")) return;
  const isOpen = by("choices-of-search").toggleAttribute("hidden") === false;
  by("search").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) by("polarity").focus();
}

function taskActions() {
  return state.is_found
    ? { l: () => isRefused("learn") || openSheet("learn"), t: openResults, b: () => showLayer("before"), k: () => by("changes").hidden || openSheet("changes"), g: toggleSearch }
    : { p: preview, g: find };
}

by("sheet").onclick = ({ target }) => { // on an image, in what has changed
  if (!target.dataset.name) return;
  by("sheet").close();
  inLine(() => open(images.find(({ name }) => name === target.dataset.name)?.id)).then(() => showLayer("before", true));
};
by("choices-of-search").oninput = showLeast;
by("choices-of-search").onchange = preview;

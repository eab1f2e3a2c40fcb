// The labels that are there, by the model and by people: to be filtered, looked at and corrected.
const SHOWN = 60; // images on a page
const BOUNCE = 150; // ms after other images appear in which a key was meant for those before
const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
const ATTEMPTS = 3; // to load a picture: the server may be busy

let client = ""; // this window's name
let labels = []; // the images shown
let total = 0;
let start = 0;
let busy = false;
let asked = 0; // requests for images so far: an answer to an earlier one is out of date
let appeared = 0; // when other images took the place of those before, in ms
let focused = 0; // index of the image that has the focus, or gets it
let anchor = 0; // index where a range begins
const selected = new Set(); // image ids
const pictures = new Map(); // image id -> <img>

// --- which images are shown -------------------------------------------------------------------

// With `isOther`, images other than those shown are wanted, and the focus is on the first.
async function load(isOther = false) {
  asked += 1;
  const mine = asked;
  const wanted = {
    category: Number(by("label").value || 0),
    source: by("source").value,
    order: by("order").value,
    start,
    n: SHOWN,
  };
  try {
    const answer = await post("labels", wanted);
    hideTrouble();
    if (mine !== asked) return;
    if (!answer.labels.length && start) { // the last ones of the last page have another label now
      start = Math.max(0, SHOWN * (Math.ceil(answer.total / SHOWN) - 1));
      await load(isOther);
      return;
    }
    take(answer, wanted.category, isOther);
  } catch (error) {
    if (mine !== asked) return;
    showTrouble(error instanceof Refused ? error.message
      : "The server does not answer. This page may be out of date; nothing is lost.", false);
  }
}

function take(answer, category, isOther) {
  const before = labels;
  const viewed = by("view").open ? labels[focused].id : null;
  const hadFocus = by("grid").contains(document.activeElement);
  ({ labels, total, categories } = answer);
  const places = new Map(labels.map(({ id }, place) => [id, place]));
  // The image that had the focus has it still, or else the next one of those that are left.
  const placeNow = (index) => {
    const kept = before.slice(index).find(({ id }) => places.has(id));
    return kept ? places.get(kept.id) : Math.max(0, Math.min(index, labels.length - 1));
  };
  [focused, anchor] = isOther ? [0, 0] : [placeNow(focused), placeNow(anchor)];
  for (const id of selected) if (!places.has(id)) selected.delete(id);
  for (const id of pictures.keys()) if (!places.has(id)) pictures.delete(id);
  if (before.map(({ id }) => id).join() !== labels.map(({ id }) => id).join()) appeared = performance.now();
  showFilter(answer.counts, category);
  showGrid();
  showChoices();
  showChosen();
  if (hadFocus) focusTile();
  if (viewed !== null) {
    // After a click here the next image comes; otherwise another window has changed this one.
    if (busy || places.has(viewed)) showView();
    else leaveView();
  }
  const end = start + labels.length;
  by("place").textContent = total ? `${count(start + 1)}–${count(end)} of ${count(total)} ${UNIT}s` : "";
  by("previous").disabled = busy || start === 0;
  by("next").disabled = busy || end >= total;
  by("none").hidden = total > 0;
}

function showFilter(counts, category) {
  const number = new Map(counts);
  const sum = counts.reduce((all, [, n]) => all + n, 0);
  const option = (id, name, n) => {
    const made = element("option", "", `${name} (${count(n)})`);
    made.value = id;
    return made;
  };
  by("label").replaceChildren(option(0, "any", sum),
    ...categories.filter(({ id }) => number.has(id) || id === category)
      .map(({ id, name }) => option(id, name, number.get(id) ?? 0)));
  by("label").value = String(category);
}

function nameOf(category) {
  return (categories.find((each) => each.id === category) || { name: "?" }).name;
}

function byWhom(label) {
  if (label.by === "model") return percent(label.confidence);
  return label.category === label.predicted ? "by a person"
    : `by a person, not ${nameOf(label.predicted)}`;
}

function showGrid() {
  by("grid").replaceChildren(...labels.map((label, index) => {
    const tile = element("li", "tile", picture(label), element("span", "class", nameOf(label.category)),
      element("span", "whom", byWhom(label)), element("span", "file", label.name.split("/").pop()));
    tile.setAttribute("role", "option");
    tile.id = `tile-${label.id}`;
    tile.title = label.name + (label.time ? `, labelled ${new Date(1000 * label.time).toLocaleString()}` : "");
    tile.setAttribute("aria-label", `${nameOf(label.category)}, ${byWhom(label)}, ${label.name}`);
    tile.onclick = (event) => { choose(index, event.shiftKey); };
    tile.ondblclick = () => openView(index);
    return tile;
  }));
  showSelection();
  loadInTurn(waitingPictures);
}

function picture(label) {
  if (!pictures.has(label.id)) {
    const img = new Image();
    img.alt = "";
    img.draggable = false;
    img.dataset.src = `small/${label.id}`;
    let attempts = 0;
    img.onerror = () => {
      attempts += 1;
      if (attempts < ATTEMPTS) setTimeout(() => { img.src = `small/${label.id}?${attempts}`; }, RETRY);
      else img.alt = "cannot be shown";
    };
    pictures.set(label.id, img);
  }
  return pictures.get(label.id);
}

function waitingPictures() {
  return labels.map((label) => pictures.get(label.id)).filter((img) => img && !img.getAttribute("src"));
}

function isLoaded(id) {
  if (by("view").open) return by("view-image").complete; // whether or not it can be shown
  const img = pictures.get(id);
  return Boolean(img && (img.naturalWidth || img.alt));
}

// --- choosing images --------------------------------------------------------------------------

function choose(index, isRange) {
  if (isRange) {
    const [low, high] = [Math.min(anchor, index), Math.max(anchor, index)];
    labels.slice(low, high + 1).forEach((label) => selected.add(label.id));
  } else {
    const { id } = labels[index];
    if (!selected.delete(id)) selected.add(id);
    anchor = index;
  }
  focused = index;
  showSelection();
  focusTile();
}

function chooseAll() {
  labels.forEach((label) => selected.add(label.id));
  showSelection();
}

function chooseNone() {
  selected.clear();
  showSelection();
}

function showSelection() {
  [...by("grid").children].forEach((tile, index) => {
    tile.setAttribute("aria-selected", String(selected.has(labels[index].id)));
    tile.tabIndex = index === focused ? 0 : -1;
  });
  showChosen();
}

// The images that a label is for: the one that is enlarged, those chosen, or the one with the focus.
function targets() {
  if (by("view").open) return labels.slice(focused, focused + 1);
  if (selected.size) return labels.filter((label) => selected.has(label.id));
  return by("grid").contains(document.activeElement) ? labels.slice(focused, focused + 1) : [];
}

function showChosen() {
  const n = selected.size;
  by("chosen").textContent = n ? `${count(n)} ${UNIT}${n === 1 ? "" : "s"} chosen: which category?`
    : `Which category is the ${UNIT}?`;
}

function focusTile() {
  const tile = by("grid").children[focused];
  if (!tile) return;
  showSelection();
  tile.focus();
}

function move(key, isRange) {
  if (!labels.length) return;
  if (isRange && !selected.size) anchor = focused;
  const tiles = [...by("grid").children];
  if (by("grid").contains(document.activeElement)) focused = placeAfter(key, focused, tiles);
  if (isRange) choose(focused, true);
  else anchor = focused;
  focusTile();
}

// --- changing labels --------------------------------------------------------------------------

function showChoices() {
  const keys = numbered().slice(0, KEYS);
  const more = numbered().length - keys.length;
  by("keys").textContent = more ? `${count(more)} more, by name: N.` : "";
  by("keys").hidden = !more;
  by("choices").replaceChildren(...keys.map(choiceButton));
  by("view-choices").replaceChildren(...keys.map(choiceButton));
}

function choiceButton(category, index) {
  const made = button(() => correct(category.id), "", element("kbd", "", String(index + 1)),
    element("span", "label", category.name));
  made.dataset.category = category.id;
  made.disabled = busy;
  made.onmousedown = (event) => event.preventDefault(); // the focus stays on the image
  return element("li", "", made);
}

async function send(path, body) {
  if (busy) return;
  setBusy(true);
  const slow = setTimeout(() => say("saving…"), SLOW);
  try {
    const answer = await postUntilAnswered(path, { client, click: randomName(), ...body });
    say(answer.outcome === "kept" ? `saved: ${answer.message}` : answer.message);
    selected.clear();
    await load();
  } catch (error) {
    showTrouble(error.message, false);
  } finally {
    clearTimeout(slow);
    setBusy(false);
  }
}

async function correct(category, chosen = targets()) {
  if (busy || performance.now() - appeared <= BOUNCE) return;
  if (!chosen.length) {
    say(`choose ${UNIT}s first: click on them, or move with the arrow keys`);
    return;
  }
  if (!chosen.every((label) => isLoaded(label.id))) {
    say("not all of these images are loaded yet: nothing was labelled");
    return;
  }
  await send("correct", { items: chosen.map((label) => [label.id, label.event]), category });
}

async function undo() {
  const before = new Set(labels.map(({ id }) => id));
  await send("restore", {});
  const back = labels.findIndex(({ id }) => !before.has(id)); // to be labelled again
  if (back < 0) return;
  focused = anchor = back;
  if (by("view").open) showView();
  else if (by("grid").contains(document.activeElement)) focusTile();
  else showSelection();
}

function openDialog() {
  const chosen = targets();
  if (busy) return;
  if (!chosen.length) say(`choose ${UNIT}s first: click on them, or move with the arrow keys`);
  else askName((category) => correct(category.id, chosen));
}

function turn(step) {
  const wanted = start + step * SHOWN;
  if (busy || wanted < 0 || wanted >= total) return;
  start = wanted;
  selected.clear();
  by("scroll").scrollTop = 0;
  load(true);
}

// --- one image, enlarged ----------------------------------------------------------------------

function openView(index) {
  if (!labels.length) return;
  focused = Math.min(index, labels.length - 1);
  showSelection();
  if (!by("view").open) by("view").showModal();
  showView();
}

function showView() {
  const label = labels[focused];
  if (!label) { by("view").close(); return; }
  const source = `image/${label.id}`;
  if (by("view-image").getAttribute("src") !== source) {
    by("view-trouble").hidden = true;
    by("view-image").src = source;
  }
  by("view-image").alt = `Micrograph ${label.name}`;
  by("view-label").textContent = `${nameOf(label.category)}, ${byWhom(label)}`;
  by("view-name").textContent = label.name;
  by("view-previous").disabled = focused === 0;
  by("view-next").disabled = focused === labels.length - 1;
}

function leaveView() {
  by("view").close();
  say("the enlarged image has another label now: another window has changed it");
}

function moveView(step) {
  focused = Math.max(0, Math.min(labels.length - 1, focused + step));
  showView();
}

// --- keys and the rest ------------------------------------------------------------------------

function setBusy(now) {
  busy = now;
  document.querySelectorAll(".panel button, .view .choices button").forEach((button) => { button.disabled = now; });
  by("previous").disabled = now || start === 0;
  by("next").disabled = now || start + labels.length >= total;
  by("browse").setAttribute("aria-busy", String(now));
}

function onKey(event) {
  if (event.altKey || event.metaKey || by("dialog").open) return;
  if (event.target instanceof HTMLSelectElement) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey) {
    if (key === "z" && !event.repeat) { event.preventDefault(); undo(); }
    return;
  }
  const inView = by("view").open;
  if (MOVES.includes(event.key)) {
    event.preventDefault();
    if (!inView) move(event.key, event.shiftKey);
    else if (key === "arrowleft" || key === "arrowright") moveView(key === "arrowleft" ? -1 : 1);
    return;
  }
  if (event.repeat) return;
  const onTile = by("grid").contains(document.activeElement);
  const actions = { u: undo, n: openDialog, ...ofWrong((id) => correct(id)) };
  if (!inView) Object.assign(actions, { a: chooseAll, escape: chooseNone, ",": () => turn(-1), ".": () => turn(1) });
  if (onTile && !inView) Object.assign(actions, { " ": () => choose(focused, event.shiftKey), enter: () => openView(focused) });
  if (/^[1-9]$/.test(key)) {
    const category = numbered()[Number(key) - 1];
    if (category) correct(category.id);
  } else if (key in actions) {
    event.preventDefault(); // or the letter is typed into the dialog that it opens
    actions[key]();
  }
}

function filter() {
  start = 0;
  selected.clear();
  by("scroll").scrollTop = 0;
  load(true);
}

document.addEventListener("keydown", onKey);
by("filters").onsubmit = (event) => event.preventDefault();
by("source").onchange = () => { by("label").value = "0"; filter(); };
by("label").onchange = filter;
by("order").onchange = filter;
by("previous").onclick = () => turn(-1);
by("next").onclick = () => turn(1);
by("new").onclick = openDialog;
by("new").onmousedown = (event) => event.preventDefault(); // the focus stays on the image
by("undo").onclick = undo;
if (by("wrong")) by("wrong").onclick = () => correct(wrongOutline().id);
by("all").onclick = chooseAll;
by("nothing").onclick = chooseNone;
by("enlarge").onclick = () => openView(focused);
by("view-previous").onclick = () => moveView(-1);
by("view-next").onclick = () => moveView(1);
by("view-close").onclick = () => by("view").close();
by("view").onclose = () => { by("view-image").removeAttribute("src"); focusTile(); };
by("view-image").onerror = () => {
  if (!by("view-image").getAttribute("src")) return;
  by("view-trouble").textContent = "This image cannot be shown now.";
  by("view-trouble").hidden = false;
};
document.addEventListener("visibilitychange", () => { if (!document.hidden && !busy) load(); });
ownName("labels").then((name) => { client = name; });
load();

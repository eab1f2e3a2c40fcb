// The labels that are there, by the model and by people: to be filtered, looked at and corrected.
const SHOWN = 60; // images on a page

let labels = []; // the images shown
let total = 0;
let start = 0;
let asked = 0; // requests for images so far: an answer to an earlier one is out of date
let focused = 0; // index of the image that has the focus, or gets it
let anchor = 0; // index where a range begins
const selected = new Set(); // image ids

// --- which images are shown -------------------------------------------------------------------

// With `isOther`, images other than those shown are wanted, and the focus is on the first.
async function load(isOther = false) {
  asked += 1;
  const mine = asked;
  const [source, order] = [by("source").value, by("order").value];
  const category = Number(by("label").value || 0);
  try {
    const answer = await post("labels", { category, source, order, start, n: SHOWN });
    hideTrouble();
    if (mine !== asked) return;
    if (!answer.labels.length && start) { // the last ones of the last page have another label now
      start = Math.max(0, SHOWN * (Math.ceil(answer.total / SHOWN) - 1));
      return load(isOther);
    }
    take(answer, category, isOther);
  } catch (error) {
    if (mine === asked) showFailure(error);
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
  dropPictures(labels);
  if (before.map(({ id }) => id).join() !== labels.map(({ id }) => id).join()) appeared = performance.now();
  showFilter(answer.counts, category);
  showGrid();
  showChoices();
  showChosen();
  if (hadFocus) focusTile();
  if (viewed !== null) {
    // After a click here the next image comes; otherwise another window has changed this one.
    if (busy || places.has(viewed)) showView();
    else {
      by("view").close();
      say("the enlarged image has another label now: another window has changed it");
    }
  }
  const end = start + labels.length;
  by("place").textContent = total ? `${count(start + 1)}–${count(end)} of ${count(total)} ${UNIT}s` : "";
  by("previous").disabled = start === 0;
  by("next").disabled = end >= total;
  by("none").hidden = total > 0;
}

function showFilter(counts, category) {
  const number = new Map(counts);
  const sum = counts.reduce((all, [, n]) => all + n, 0);
  const option = (id, name, n) => new Option(`${name} (${count(n)})`, id);
  by("label").replaceChildren(option(0, "any", sum),
    ...categories.filter(({ id }) => number.has(id) || id === category).map(({ id, name }) => option(id, name, number.get(id) ?? 0)));
  by("label").value = String(category);
}

function nameOf(category) { return categories.find(({ id }) => id === category)?.name ?? "?"; }

function byWhom(label) {
  if (label.by === "model") return percent(label.confidence);
  return label.category === label.predicted ? "by a person" : `by a person, not ${nameOf(label.predicted)}`;
}

function showGrid() {
  by("grid").replaceChildren(...labels.map((label, index) => {
    const tile = element("li", "tile", picture(label), element("span", "class", nameOf(label.category)),
      element("span", "whom", byWhom(label)), element("span", "file", label.name));
    tile.setAttribute("role", "option");
    tile.id = `tile-${label.id}`;
    tile.title = label.name + (label.time ? `, labelled ${new Date(1000 * label.time).toLocaleString()}` : "");
    tile.setAttribute("aria-label", `${nameOf(label.category)}, ${byWhom(label)}, ${label.name}`);
    tile.onclick = (event) => { choose(index, event.shiftKey); };
    tile.ondblclick = () => openView(index);
    return tile;
  }));
  showSelection();
  loadInTurn(() => labels.map(picture));
}

function picture({ id }) { return keptPicture(id, () => smallPicture(`small/${id}`)); }

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

function chooseOnly(chosen) {
  selected.clear();
  chosen.forEach(({ id }) => selected.add(id));
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
  by("chosen").textContent = n ? `${count(n)} ${UNIT}${n === 1 ? "" : "s"} chosen: which class?`
    : `Which class is the ${UNIT}?`;
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
  const choices = () => keyed().map((category, index) => element("li", "", choiceButton(category, index)));
  showMore();
  by("choices").replaceChildren(...choices());
  by("view-choices").replaceChildren(...choices());
}

function send(path, body) {
  return click(path, body, async (answer) => {
    say(answer.outcome === "kept" ? `saved: ${answer.message}` : answer.message);
    selected.clear();
    await load();
  });
}

async function assign(category, chosen = targets()) {
  if (busy || isBounce()) return;
  const areLoaded = chosen.every((label) => isLoaded(label.id));
  if (!chosen.length) sayChoose();
  else if (!areLoaded) say("not all of these images are loaded yet: nothing was labelled");
  else await send("correct", { items: chosen.map((label) => [label.id, label.event]), category });
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

function sayChoose() { say(`choose ${UNIT}s first: click on them, or move with the arrow keys`); }

function openDialog() {
  const chosen = targets();
  if (busy) return;
  if (!chosen.length) sayChoose();
  else askName((category) => assign(category.id, chosen));
}

function turn(step) {
  const wanted = start + step * SHOWN;
  if (!busy && wanted >= 0 && wanted < total) showFrom(wanted);
}

function showFrom(place) {
  start = place;
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
  if (by("view-image").getAttribute("src") !== source) Object.assign(by("view-image"), { alt: `Micrograph ${label.name}`, src: source });
  by("view-label").textContent = `${nameOf(label.category)}, ${byWhom(label)}`;
  by("view-name").textContent = label.name;
  by("view-previous").disabled = focused === 0;
  by("view-next").disabled = focused === labels.length - 1;
}

function moveView(step) {
  focused = Math.max(0, Math.min(labels.length - 1, focused + step));
  showView();
}

// --- keys and the rest ------------------------------------------------------------------------

function actionsOf({ key, shiftKey, target }) {
  if (by("view").open) return { arrowleft: () => moveView(-1), arrowright: () => moveView(1) };
  const onTile = by("grid").contains(document.activeElement);
  const moves = MOVES.map((each) => [each.toLowerCase(), () => move(key, shiftKey)]);
  return {
    ...Object.fromEntries(moves),
    a: () => chooseOnly(labels), escape: () => chooseOnly([]), ",": () => turn(-1), ".": () => turn(1),
    ...(onTile && { " ": () => choose(focused, shiftKey) }),
    ...((onTile || target.id === "enlarge") && { enter: () => openView(focused) }),
  };
}

by("source").onchange = () => { by("label").value = "0"; showFrom(0); };
by("label").onchange = by("order").onchange = () => showFrom(0);
by("view").onclose = () => { by("view-image").removeAttribute("src"); focusTile(); };
by("view-image").onerror = ({ target }) => { target.alt = "This image cannot be shown now."; };
function refresh() { if (!busy) load(); }
ownName("labels").then((name) => { client = name; });
load();

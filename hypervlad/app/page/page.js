// One window of the review: shows the images it has leased, sends clicks, waits until they are saved.
const WANT = 5; // leased images: the one that is shown and those loaded ahead
const BEATS = 3; // heartbeats for the time of a lease
const BOUNCE = 100; // ms after an image appears in which a key was meant for the one before
const WHOLE = 8192; // pixels of the longer side that the server sends at most

const KIND_IN_WORDS = {
  ambiguous: "Between categories",
  out_of_distribution: `Unlike all training ${UNIT}s`,
};

let client = ""; // this window's name

let hand = [];
let current = null;
let progress = null;
let busy = false;
let clicks = 0; // so far: an answer to what was asked before the last one is out of date
let lease = 6; // seconds; the server says how long it really is
let appeared = 0; // when an image took the place of another, in ms
let isShown = false; // its picture, or why there is none
const pictures = new Map(); // image id -> <img>, loading or loaded
let isWhole = false; // all pixels of the file are shown, and scrolled; else they fit the window

// --- the server -------------------------------------------------------------------------------

async function click(path, body) {
  if (busy) return null;
  setBusy(true);
  clicks += 1;
  const slow = setTimeout(() => say("saving…"), SLOW);
  try {
    const answer = await postUntilAnswered(path, { client, click: randomName(), want: WANT, ...body });
    take(answer);
    return answer;
  } catch (error) {
    showTrouble(error.message, false);
    return null;
  } finally {
    clearTimeout(slow);
    setBusy(false);
  }
}

// Keeps the leases, and shows what has changed; what is being named stays where it is.
async function refresh() {
  if (!client || busy) return;
  const clicked = clicks;
  try {
    const answer = await post("next", { client, want: WANT });
    hideTrouble();
    if (!busy && clicked === clicks && !by("dialog").open) take(answer);
  } catch (error) {
    showTrouble(error instanceof Refused ? error.message
      : "The server does not answer. This page may be out of date; nothing is lost.", false);
  }
}

// The server gives the images of a window that is silent for the time of a lease to others.
async function beat() {
  await refresh();
  setTimeout(beat, 1000 * lease / BEATS);
}

// --- what was answered ------------------------------------------------------------------------

function take(answer) {
  lease = answer.lease;
  categories = answer.categories;
  hand = answer.items;
  progress = answer.progress;
  for (const id of pictures.keys()) {
    if (!hand.some((item) => item.id === id)) pictures.delete(id);
  }
  const keep = current && hand.find((item) => item.id === current.id);
  show(keep || hand[0] || null);
  hand.forEach(picture);
  showProgress();
  loadMore();
}

// The current image first, its nearest training images, the next images.
function waitingPictures() {
  const near = by("nearest").querySelectorAll("img");
  const mine = [current, ...hand].map((item) => item && pictures.get(item.id));
  const waiting = [mine[0], ...near, ...mine].filter((img) => img && !img.getAttribute("src"));
  return new Set(waiting);
}

function loadMore() { loadInTurn(waitingPictures); }

function picture(item) {
  if (!pictures.has(item.id)) {
    const img = new Image();
    img.alt = `Micrograph ${item.name}`;
    img.draggable = false;
    img.dataset.src = `image/${item.id}`;
    pictures.set(item.id, img);
  }
  return pictures.get(item.id);
}

function show(item) {
  const same = item && current && item.id === current.id;
  if (same) Object.assign(current, item);  // what waits for its picture knows it by identity
  else current = item;
  by("work").hidden = !item;
  by("done").hidden = Boolean(item);
  if (!item) {
    showDone();
    return;
  }
  if (!same) {
    showPicture(item);
    by("name").textContent = item.name;
    by("name").title = item.name;
    by("kind").textContent = KIND_IN_WORDS[item.kind] || "Doubtful";
    by("reason").textContent = item.reason;
    showNearest(item);
    say("");
  }
  showChoices(item);
}

function showProgress() {
  const { labelled, skipped, waiting, by_model: sure } = progress;
  const looked = labelled + skipped;
  const total = looked + waiting;
  by("bar").max = Math.max(total, 1);
  by("bar").value = looked;
  const aside = skipped ? ` (${count(skipped)} skipped)` : "";
  by("progress").textContent =
    `${count(looked)} of ${count(total)} reviewed${aside}, ${count(sure)} labelled by the model`;
  document.title = `${looked}/${total} – hypervlad review`;
}

function showDone() {
  const { labelled, skipped, waiting, by_model: sure } = progress;
  by("done-title").textContent = waiting ? "Nothing left for this window" : "All done";
  by("done-text").textContent = waiting
    ? `The last ${count(waiting)} are open in another window; those that it leaves will appear here.`
    : `${count(labelled)} labelled by people, ${count(sure)} by the model, ${count(skipped)} skipped.`;
  by("done-next").textContent =
    "Next: “hypervlad review export” writes the labels to a table, “hypervlad review retrain” learns from them.";
  by("again").hidden = !skipped;
}

// --- categories -------------------------------------------------------------------------------

// The first nine categories have the keys, always the same, so that fingers can learn them; what
// people add later never moves them. Only if the model has more than nine, the keys label the most
// probable ones of each image, and the page says so. The others are found by name.
function choices(item) {
  const share = new Map(item.scores);
  const order = numbered();
  if (keysVary()) {
    order.sort((a, b) => (share.get(b.id) ?? -1) - (share.get(a.id) ?? -1) || a.id - b.id);
  }
  const shown = order.slice(0, KEYS);
  const probable = item.scores.slice(0, 3).map(([id]) => order.find((each) => each.id === id));
  shown.push(...probable.filter((each) => each && !shown.includes(each))); // without keys
  return shown.map((category) => ({ ...category, share: share.get(category.id) }));
}

function keysVary() {
  return categories.filter((category) => category.origin === "model").length > KEYS;
}

function keysInWords() {
  if (keysVary()) return `The most probable first: keys differ from ${UNIT} to ${UNIT}. Others: N.`;
  return numbered().length > KEYS ? `${count(numbered().length - KEYS)} more, by name: N.` : "";
}

function showChoices(item) {
  const first = item.scores.length ? item.scores[0][0] : null;
  by("keys").textContent = keysInWords();
  by("keys").hidden = !keysInWords();
  by("choices").replaceChildren(...choices(item).map((choice, index) => {
    const share = choice.share === undefined ? "new" : percent(choice.share);
    const made = button(() => label(choice.id), choice.id === first ? "first" : "", filled(choice.share || 0),
      index < KEYS ? element("kbd", "", String(index + 1)) : element("span"),
      element("span", "label", choice.name), element("span", "share", share));
    made.dataset.category = choice.id;
    made.disabled = busy;
    made.setAttribute("aria-label", `${index < KEYS ? `${index + 1}: ` : ""}${choice.name}, ${share}`);
    return element("li", "", made);
  }));
}

function showNearest(item) {
  const pictured = item.nearest.some((image) => image.has_picture);
  by("near").hidden = !item.nearest.length;
  by("nearest").className = pictured ? "nearest" : "nearest plain";
  by("nearest").replaceChildren(...item.nearest.map((image) => {
    const img = new Image();
    img.alt = "";
    img.dataset.src = `training/${image.row}`;
    img.onerror = () => setTimeout(() => { // the server was busy, or the file is gone
      img.onerror = null;
      img.src = `training/${image.row}?again`;
    }, RETRY);
    const file = element("span", "file", image.name.split("/").pop());
    file.title = image.name;
    return element("li", "", image.has_picture ? img : "", element("span", "class", image.label), file);
  }));
}

// --- clicks -----------------------------------------------------------------------------------

async function label(category) {
  if (!current || busy) return;
  if (!isSeen()) return;
  const name = categories.find((each) => each.id === category).name;
  const shown = document.querySelector(`[data-category="${category}"]`);
  if (shown) shown.classList.add("chosen");
  const answer = await click("label", { item: current.id, category });
  if (answer) say(answer.outcome === "kept" ? `saved: ${name}` : answer.message);
}

async function skip() {
  if (!current || busy || isBounce()) return;
  const answer = await click("skip", { item: current.id });
  if (answer) say(answer.outcome === "kept" ? "skipped" : answer.message);
}

async function undo() {
  if (current && isBounce()) return;
  const answer = await click("undo", {});
  if (!answer) return;
  const back = hand.find((item) => item.id === answer.item);
  if (answer.outcome === "kept" && back) show(back);
  say(answer.outcome === "kept" ? "undone: label it again" : answer.message);
}

async function again() {
  if (await click("again", {})) say(`the skipped ${UNIT}s are in the queue again`);
}

function openDialog() {
  if (!current || busy) return;
  const item = current.id;
  askName(async (category) => {
    if (current && current.id === item) await label(category.id);
    else showTrouble(`Not labelled: another ${UNIT} is shown now.`, false);
  }, isSeen);
}

// --- the picture ------------------------------------------------------------------------------

function showPicture(item) {
  isWhole = false;
  appeared = performance.now();
  setSeen(false);
  const img = picture(item);
  const box = by("stage");
  if (img.complete && img.naturalWidth) {
    put(item, img);
  } else {
    box.replaceChildren(element("p", "", "loading…"));
    img.onload = () => { if (current === item) put(item, img); };
    img.onerror = () => { if (current === item) showUnreadable(item); };
    if (img.getAttribute("src") && img.complete) showUnreadable(item);
  }
  loadMore();
  showZoom();
}

async function showUnreadable(item) {
  const answer = await fetch(`image/${item.id}`).catch(() => null);
  if (current !== item) return;
  pictures.delete(item.id); // another look tries again
  if (!answer || answer.ok || answer.status === 503) { // gone for a moment, or busy
    setTimeout(() => { if (current === item) showPicture(item); }, RETRY);
    return;
  }
  const words = (await answer.json().catch(() => ({ error: `status ${answer.status}` }))).error;
  if (current === item) put(item, element("p", "", `This image cannot be shown: ${words}. You can skip it with S.`));
}

// Nobody can label an image that is not on the screen yet, or means one that has just appeared.
function put(item, ...nodes) {
  by("stage").replaceChildren(...nodes);
  setTimeout(() => { if (current === item) setSeen(true); }, BOUNCE);
}

function isSeen() {
  if (!isShown && !isBounce()) say("the image is not loaded yet: nothing was labelled");
  return isShown;
}

function isBounce() {
  return performance.now() - appeared <= BOUNCE;
}

function setSeen(now) {
  isShown = now;
  by("stage").setAttribute("aria-busy", String(!now));
}

function shownImage() {
  return by("stage").querySelector("img");
}

function showZoom() {
  by("stage").classList.toggle("fit", !isWhole);
  by("fit").setAttribute("aria-pressed", String(!isWhole));
  by("whole").setAttribute("aria-pressed", String(isWhole));
}

function fitPicture() {
  if (isWhole) showPicture(current);
}

// All pixels of the file, in place of the picture scaled to the screen.
async function showWhole() {
  if (isWhole || !shownImage()) return;
  const item = current;
  const img = new Image();
  img.alt = shownImage().alt;
  img.draggable = false;
  img.src = `whole/${item.id}`;
  try {
    await img.decode();
  } catch {
    say("the full-size image is not available now: the smaller one stays");
    return;
  }
  if (current !== item || isWhole) return;
  isWhole = true;
  if (Math.max(img.naturalWidth, img.naturalHeight) >= WHOLE) {
    say(`shown with ${count(WHOLE)} pixels on its longer side: the file may have more`);
  }
  const box = by("stage");
  box.replaceChildren(img);
  showZoom();
  box.scrollTo((box.scrollWidth - box.clientWidth) / 2, (box.scrollHeight - box.clientHeight) / 2);
}

function toggleWhole() { return isWhole ? fitPicture() : showWhole(); }

// --- small things -----------------------------------------------------------------------------

function setBusy(now) {
  busy = now;
  document.querySelectorAll(".panel button, .done button").forEach((button) => { button.disabled = now; });
  by("work").setAttribute("aria-busy", String(now));
}

function onKey(event) {
  if (event.repeat || event.altKey || event.metaKey || by("dialog").open) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey) {
    if (key === "z") { event.preventDefault(); undo(); }
    return;
  }
  const onButton = document.activeElement instanceof HTMLButtonElement;
  const actions = { s: skip, u: undo, n: openDialog, f: toggleWhole, a: askAgain, ...ofWrong(label) };
  if (/^[1-9]$/.test(key)) {
    const choice = current && choices(current)[Number(key) - 1];
    if (choice) label(choice.id);
  } else if (key === "enter" && !onButton && current && current.scores.length) {
    label(current.scores[0][0]);
  } else if (key in actions) {
    event.preventDefault(); // or the letter is typed into the dialog that it opens
    actions[key]();
  }
}

function askAgain() { if (!current && !by("again").hidden) again(); }

document.addEventListener("keydown", onKey);
by("skip").onclick = skip;
by("undo").onclick = undo;
by("undo-done").onclick = undo;
by("again").onclick = again;
by("new").onclick = openDialog;
if (by("wrong")) by("wrong").onclick = () => label(wrongOutline().id);
by("fit").onclick = fitPicture;
by("whole").onclick = showWhole;
by("stage").addEventListener("dblclick", toggleWhole);
window.addEventListener("pagehide", () => {
  fetch("release", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ client }),
    keepalive: true,
  });
});
window.addEventListener("pageshow", (event) => { if (event.persisted) refresh(); });
// Browsers slow down the timers of a hidden page, so that its images may be in other windows now.
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!current && progress && progress.waiting) refresh(); }, 3_000);
ownName("client").then((name) => {
  client = name;
  beat();
  setTimeout(refresh, RETRY); // this page's own, if the last one's farewell came late
});

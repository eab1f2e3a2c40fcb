// One window of the review: shows the images it has leased, sends clicks, waits until they are saved.
const WANT = 5; // leased images: the one that is shown and those loaded ahead
const BEATS = 3; // heartbeats for the time of a lease
const WHOLE = 8192; // pixels of the longer side that the server sends at most

let hand = [];
let current = null;
let lease = 6; // seconds; the server says how long it really is
let isShown = false; // its picture, or why there is none
let isWhole = false; // all pixels of the file are shown

// --- the server -------------------------------------------------------------------------------

function send(path, body) { return click(path, { want: WANT, ...body }, take); }

// Keeps the leases, and shows what has changed; what is being named stays where it is.
async function refresh() {
  if (!client || busy) return;
  const clicked = clicks;
  const answer = await post("next", { client, want: WANT }).catch(showFailure);
  if (!answer) return;
  hideTrouble();
  if (!busy && clicked === clicks && !by("dialog").open) take(answer);
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
  dropPictures(hand);
  const keep = current && hand.find((item) => item.id === current.id);
  show(keep || hand[0] || null);
  hand.forEach(picture);
  showProgress(answer.progress);
  loadInTurn(waitingPictures);
}

// The current image first, its nearest training images, the next images.
function waitingPictures() {
  const mine = [current, ...hand].map((item) => item && pictures.get(item.id));
  return [mine[0], ...by("nearest").querySelectorAll("img"), ...mine];
}

function picture({ id, name }) { return keptPicture(id, () => newPicture(`image/${id}`, `Micrograph ${name}`)); }

function show(item) {
  const same = item && current && item.id === current.id;
  if (same) Object.assign(current, item);  // what waits for its picture knows it by identity
  else current = item;
  by("work").hidden = !item;
  by("done").hidden = Boolean(item);
  if (item && !same) {
    showPicture(item);
    Object.assign(by("name"), { textContent: item.name, title: item.name });
    by("kind").textContent = by("kind").dataset[item.kind] ?? "Doubtful";
    by("reason").textContent = item.reason;
    showNearest(item);
    say("");
  }
  if (item) showChoices(item);
}

function showProgress({ labelled, skipped, waiting, by_model: sure }) {
  const looked = labelled + skipped;
  const total = looked + waiting;
  Object.assign(by("bar"), { max: Math.max(total, 1), value: looked });
  const aside = skipped ? ` (${count(skipped)} skipped)` : "";
  by("progress").textContent = `${count(looked)} of ${count(total)} reviewed${aside}, ${count(sure)} labelled by the model`;
  document.title = `${looked}/${total} – hypervlad review`;
  by("done-title").textContent = waiting ? "Nothing left for this window" : "All done";
  by("done-text").textContent = waiting
    ? `The last ${count(waiting)} are open in another window; those that it leaves will appear here.`
    : `${count(labelled)} labelled by people, ${count(sure)} by the model, ${count(skipped)} skipped.`;
  by("again").hidden = !skipped;
}

// --- categories -------------------------------------------------------------------------------

// The first nine categories have the keys, always the same, so that fingers can learn them; what
// people add later never moves them. Only if the model has more than nine, the keys label the most
// probable ones of each image, and the page says so. The others are found by name.
function choices(item) {
  const share = new Map(item.scores);
  const order = numbered();
  if (keysVary()) order.sort((a, b) => (share.get(b.id) ?? -1) - (share.get(a.id) ?? -1) || a.id - b.id);
  const shown = order.slice(0, KEYS);
  const probable = item.scores.slice(0, 3).map(([id]) => order.find((each) => each.id === id));
  shown.push(...probable.filter((each) => each && !shown.includes(each))); // without keys
  return shown.map((category) => ({ ...category, share: share.get(category.id) }));
}

function keysVary() { return categories.filter(({ origin }) => origin === "model").length > KEYS; }
function keyed() { return current ? choices(current) : []; }

function showChoices(item) {
  const first = item.scores.length ? item.scores[0][0] : null;
  showMore(keysVary() ? `The most probable first: keys differ from ${UNIT} to ${UNIT}. Others: N.` : undefined);
  by("choices").replaceChildren(...choices(item).map((choice, index) => {
    const share = choice.share === undefined ? "new" : percent(choice.share);
    const made = choiceButton(choice, index, element("span", "share", share));
    made.prepend(filled(choice.share || 0));
    made.classList.toggle("first", choice.id === first);
    made.setAttribute("aria-label", `${index < KEYS ? `${index + 1}: ` : ""}${choice.name}, ${share}`);
    return element("li", "", made);
  }));
}

function showNearest(item) {
  const pictured = item.nearest.some((image) => image.has_picture);
  by("near").hidden = !item.nearest.length;
  by("nearest").className = pictured ? "nearest" : "nearest plain";
  by("nearest").replaceChildren(...item.nearest.map((image) => {
    const img = image.has_picture ? smallPicture(`training/${image.row}`) : "";
    const file = element("span", "file", image.name.split("/").pop());
    file.title = image.name;
    return element("li", "", img, element("span", "class", image.label), file);
  }));
}

// --- clicks -----------------------------------------------------------------------------------

function sayOutcome(answer, words) { if (answer) say(answer.outcome === "kept" ? words : answer.message); }

async function assign(category) {
  if (!current || busy || !isSeen()) return;
  const name = categories.find((each) => each.id === category).name;
  const shown = document.querySelector(`[data-category="${category}"]`);
  if (shown) press(shown, true);
  sayOutcome(await send("label", { item: current.id, category }), `saved: ${name}`);
}

async function skip() {
  if (!current || busy || isBounce()) return;
  sayOutcome(await send("skip", { item: current.id }), "skipped");
}

async function undo() {
  if (current && isBounce()) return;
  const answer = await send("undo", {});
  const back = answer?.outcome === "kept" && hand.find((item) => item.id === answer.item);
  if (back) show(back);
  sayOutcome(answer, "undone: label it again");
}

async function again() {
  if (current || by("again").hidden) return;
  if (await send("again", {})) say(`the skipped ${UNIT}s are in the queue again`);
}

function openDialog() {
  if (!current || busy) return;
  const item = current.id;
  askName(async (category) => {
    if (current && current.id === item) await assign(category.id);
    else showTrouble(`Not labelled: another ${UNIT} is shown now.`, false);
  });
}

// --- the picture ------------------------------------------------------------------------------

async function showPicture(item) {
  isWhole = false;
  appeared = performance.now();
  setSeen(false);
  const img = picture(item);
  if (!img.naturalWidth) stage.replaceChildren(element("p", "", "loading…"));
  if (!img.getAttribute("src")) img.src = img.dataset.src;
  const why = await whyUnreadable(img, () => current === item);
  if (why) pictures.delete(item.id); // another look tries again
  if (why !== null) put(item, why ? element("p", "", `This image cannot be shown: ${why}. You can skip it with S.`) : img);
}

// Nobody can label an image that is not on the screen yet, or means one that has just appeared.
function put(item, ...nodes) {
  stage.replaceChildren(...nodes);
  fit();
  setTimeout(() => { if (current === item) setSeen(true); }, BOUNCE);
}

function isSeen() {
  if (!isShown && !isBounce()) say("the image is not loaded yet: nothing was labelled");
  return isShown;
}

function setSeen(now) {
  isShown = now;
  stage.setAttribute("aria-busy", String(!now));
}

function extent() {
  const img = stage.querySelector("img");
  return img?.naturalWidth ? [img.naturalWidth, img.naturalHeight] : [1, 1];
}

function draw() {
  const img = stage.querySelector("img");
  if (!img) return;
  place(img);
  if (view.scale > Math.max(fitted, 1) && !isWhole) showWhole(img);
}

// All pixels of the file, in place of the picture scaled to the screen, and of its size there.
async function showWhole(shown) {
  isWhole = true;
  const img = newPicture("", shown.alt);
  img.src = `whole/${current.id}`;
  if (!await img.decode().then(() => true, () => false) || shown.parentNode !== stage) return;
  const zoomed = img.naturalWidth / shown.naturalWidth;
  if (Math.max(img.naturalWidth, img.naturalHeight) >= WHOLE) say(`shown with ${count(WHOLE)} pixels on its longer side: the file may have more`);
  stage.replaceChildren(img);
  [view.scale, fitted] = [view.scale / zoomed, fitted / zoomed];
  draw();
}

// --- small things -----------------------------------------------------------------------------

function actionsOf() {
  const onButton = document.activeElement instanceof HTMLButtonElement;
  const accept = !onButton && current?.scores.length && (() => assign(current.scores[0][0]));
  return { s: skip, f: fit, "+": () => zoom(1.4), "-": () => zoom(1 / 1.4), a: again, enter: accept };
}

moveByPointer();
window.addEventListener("pagehide", () => { fetch("release", { ...asJson({ client }), keepalive: true }); });
window.addEventListener("pageshow", (event) => { if (event.persisted) refresh(); });
ownName("client").then((name) => {
  client = name;
  beat();
  setTimeout(refresh, RETRY); // this page's own, if the last one's farewell came late
});

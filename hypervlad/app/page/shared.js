// What pages with labels share: keys, sending clicks, naming a category.
// Each has `assign` (a category), `undo`, `openDialog`, `keyed` (categories) and `actionsOf` (keys).
const SLOW = 400; // ms after which the page says that a click is being saved
const BOUNCE = 150; // ms after an image appears in which a key was meant for the one before
const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
const NAMES = { "←": "arrowleft", "→": "arrowright", esc: "escape" }; // of keys, by what is on buttons
const KEYS = 9; // categories with a number as their key
const { unit: UNIT, wrong: WRONG } = document.documentElement.dataset; // image or particle, and
// the category of wrong outlines, if there are outlines: it has a key of its own.

let client = ""; // this window's name
let busy = false; // a click is being saved
let clicks = 0; // so far: an answer to what was asked before the last one is out of date
let appeared = 0; // when an image took the place of another, in ms
let categories = [];
const pictures = new Map(); // image id -> <img>, loading or loaded
let confirmed = null; // the name that was confirmed in the dialog
let named = null; // what to do with the category that the dialog is about
let redo = null; // of pages that can

// --- the server -------------------------------------------------------------------------------

// A page loaded again is the same window, which can undo; its copy in another tab is another one.
// The name is kept under a key, of which each kind of page has its own.
async function ownName(key) {
  const name = crypto.randomUUID();
  try {
    const kept = sessionStorage.getItem(key);
    if (kept && await isFree(kept)) return kept;
    sessionStorage.setItem(key, name);
  } catch { /* a browser without storage: then every page is a separate window */ }
  await isFree(name);
  return name;
}

// Take a name, for as long as the page lives, unless another page has it.
function isFree(name) {
  return new Promise((resolve) => {
    navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      resolve(Boolean(lock));
      return lock && new Promise(() => {});
    }).catch(() => resolve(false));
  });
}

// Send a click and use its answer, which is returned: null if another click is being saved.
async function click(path, body, use) {
  if (busy) return null;
  setBusy(true);
  clicks += 1;
  const slow = setTimeout(() => say("saving…"), SLOW);
  try {
    const answer = await postUntilAnswered(path, { client, click: crypto.randomUUID(), ...body });
    await use(answer);
    return answer;
  } catch (error) {
    say(""); showTrouble(error.message, false);
    return null;
  } finally {
    clearTimeout(slow);
    setBusy(false);
  }
}

function setBusy(now) {
  busy = now;
  document.querySelectorAll(".panel button, .done button, .view .choices button").forEach((each) => { each.disabled = now; });
  document.querySelector("main").setAttribute("aria-busy", String(now));
}

function isBounce() { return performance.now() - appeared <= BOUNCE; }

// Send until there is an answer: the same click, which the server counts once.
async function postUntilAnswered(path, body) {
  let givenUp = false;
  by("give-up").onclick = () => { givenUp = true; };
  for (;;) {
    try {
      const answer = await post(path, body);
      hideTrouble();
      return answer;
    } catch (error) {
      if (error instanceof Refused) throw new Refused(`Not saved: ${error.message}`);
      showTrouble(error instanceof Answered ? `Trying again: ${error.message}`
        : "The server does not answer: your click is not saved yet. Trying again… (is “hypervlad app” still running?)", true);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY));
    if (givenUp) throw new Refused("Given up. Whether the click was saved will show when the server answers.");
  }
}

// --- pictures ---------------------------------------------------------------------------------

function keptPicture(id, make) { return pictures.get(id) ?? pictures.set(id, make()).get(id); }

function dropPictures(shown) { // but those of what is shown
  for (const id of pictures.keys()) if (!shown.some((each) => each.id === id)) pictures.delete(id);
}

// --- the name of a new or another category ----------------------------------------------------

// Call `use` with the category of a name that is typed and confirmed.
function askName(use) {
  by("known").replaceChildren(...categories.map(({ name }) => new Option(name)));
  by("category").value = "";
  named = use;
  ask(null);
  by("dialog").showModal();
  by("category").focus();
}

function known(name) {
  const folded = name.toLowerCase();
  return categories.find((category) => category.name === name)
    || categories.find((category) => category.name.toLowerCase() === folded);
}

function ask(name) {
  confirmed = name;
  by("create").textContent = name === null ? "Continue" : "Yes, use this label";
  by("confirm").textContent = name === null ? ""
    : known(name) ? `“${known(name).name}” exists already: use it?`
      : `“${name}” is new: add it and use it? Press Enter again.`;
}

async function submitName(event) {
  event.preventDefault();
  const name = by("category").value.trim().replace(/\s+/g, " ");
  if (!name) return;
  if (confirmed !== name) { ask(name); return; }
  by("dialog").close();
  let category = known(name);
  if (!category) {
    category = await post("category", { name }).catch((error) => showFailure(error, "The server does not answer: the class was not saved."));
    if (!category) return;
    if (!categories.some((each) => each.id === category.id)) categories.push(category);
  }
  await named(category);
}

by("cancel").onclick = () => by("dialog").close();
by("form").onsubmit = submitName;
by("category").oninput = () => ask(null);

// --- categories with keys ---------------------------------------------------------------------

function wrongOutline() { return categories.find(({ name }) => name === WRONG); }
function numbered() { return categories.filter((category) => category !== wrongOutline()); }
function keyed() { return numbered().slice(0, KEYS); } // of pages that do not sort them

function showMore(words = numbered().length > KEYS ? `${count(numbered().length - KEYS)} more, by name: N.` : "") {
  Object.assign(by("keys"), { textContent: words, hidden: !words });
}

function choiceButton({ id, name }, index, ...further) {
  const key = index < KEYS ? element("kbd", "", String(index + 1)) : element("span");
  const made = button(() => assign(id), "", key, element("span", "label", name), ...further);
  made.dataset.category = id;
  made.disabled = busy;
  made.onmousedown = (event) => event.preventDefault(); // the focus stays on the image
  return made;
}

function actionsFor(event) { // by keys
  const numbers = keyed().slice(0, KEYS).map(({ id }, place) => [place + 1, () => assign(id)]);
  return { u: undo, n: openDialog, x: () => wrongOutline() && assign(wrongOutline().id), ...Object.fromEntries(numbers), ...actionsOf(event) };
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || by("dialog").open || by("sheet")?.open) return;
  if (event.target.matches("select, input:not([type=range])")) return;
  if (event.repeat && !MOVES.includes(event.key)) return;
  const actions = event.ctrlKey ? { z: event.shiftKey ? redo : undo, y: redo } : actionsFor(event);
  const action = actions[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault(); // or the letter is typed into the dialog that it opens
  action();
});
document.addEventListener("click", ({ target }) => { // a button does what its key does
  const pressed = target.closest("button:not([type=submit], [data-category])");
  const key = pressed?.querySelector("kbd")?.textContent.toLowerCase();
  if (key) actionsFor({ key, target: pressed })[NAMES[key] ?? key]?.();
});
by("new").onmousedown = (event) => event.preventDefault(); // the focus stays on the image

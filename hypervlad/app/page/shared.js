// What both pages of the review share: sending clicks, loading pictures, naming a category.
const RETRY = 1_000; // ms between attempts to send a click again
const SLOW = 400; // ms after which the page says that a click is being saved
const PATIENCE = 30_000; // ms to wait for an answer; the server waits 20 s for another's write
const AT_ONCE = 2; // pictures loading; a browser has six connections, and clicks need one
const KEYS = 9; // categories with a number as their key
const { unit: UNIT, wrong: WRONG } = document.documentElement.dataset; // image or particle, and
// the category of wrong outlines, if there are outlines: it has a key of its own.

let categories = [];
let loading = 0; // pictures
let confirmed = null; // the name that was confirmed in the dialog
let named = null; // what to do with the category that the dialog is about
let mayName = () => true;

// --- the server -------------------------------------------------------------------------------

class Refused extends Error {}
class Answered extends Error {} // by the server, which could not do it now

function randomName() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A page loaded again is the same window, which can undo; its copy in another tab is another one.
// The name is kept under a key, of which each kind of page has its own.
async function ownName(key) {
  const name = randomName();
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
    if (!navigator.locks) resolve(false);
    else navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      resolve(Boolean(lock));
      return lock && new Promise(() => {});
    }).catch(() => resolve(false));
  });
}

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (answer.ok) return answer.json();
  const reply = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (answer.status === 503) throw new Answered(reply.error);
  throw new Refused(`Not saved: ${reply.error}`);
}

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
      if (error instanceof Refused) throw error;
      showTrouble(error instanceof Answered ? `Trying again: ${error.message}`
        : "The server does not answer: your click is not saved yet. Trying again… "
          + "(is “hypervlad review serve” still running?)", true);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY));
    if (givenUp) {
      throw new Refused("Given up. Whether the click was saved will show when the server answers.");
    }
  }
}

// --- pictures ---------------------------------------------------------------------------------

// A few at a time, in the order that `waiting` gives whenever one has come.
function loadInTurn(waiting) {
  for (const img of waiting()) {
    if (loading >= AT_ONCE) return;
    loading += 1;
    const ended = new Promise((resolve) => {
      img.addEventListener("load", resolve, { once: true });
      img.addEventListener("error", resolve, { once: true });
    });
    img.src = img.dataset.src;
    ended.then(() => { loading -= 1; loadInTurn(waiting); });
  }
}

// --- the name of a new or another category ----------------------------------------------------

// Call `use` with the category of a name that is typed and confirmed, if `may` allows it then.
function askName(use, may = () => true) {
  by("known").replaceChildren(...categories.map((category) => {
    const option = element("option");
    option.value = category.name;
    return option;
  }));
  by("category").value = "";
  named = use;
  mayName = may;
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
  if (confirmed !== name) {
    ask(name);
    return;
  }
  if (!mayName()) return;
  by("dialog").close();
  let category = known(name);
  if (!category) {
    try {
      category = await post("category", { name });
    } catch (error) {
      showTrouble(error instanceof Refused ? error.message
        : "The server does not answer: the category was not saved.", false);
      return;
    }
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

// The key of wrong outlines, if there are any.
function ofWrong(use) {
  const wrong = wrongOutline();
  return wrong ? { x: () => use(wrong.id) } : {};
}

// --- small things -----------------------------------------------------------------------------

function say(words) { by("status").textContent = words; }

function showTrouble(words, canGiveUp) {
  by("trouble-text").textContent = words;
  by("give-up").hidden = !canGiveUp;
  by("trouble").hidden = false;
}

function hideTrouble() { by("trouble").hidden = true; }

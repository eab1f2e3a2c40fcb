// What all pages share: requests to the server, messages, and pictures that are loaded in turn.
const RETRY = 1_000; // ms between attempts to send a click again
const PATIENCE = 30_000; // ms to wait for an answer; the server waits 20 s for another's write
const LOOKING = 600_000; // the same of a preview, on a slow or busy computer
const AT_ONCE = 2; // pictures loading; a browser has six connections, and clicks need one
const ATTEMPTS = 3; // to load a small picture: the server may be busy

let loading = 0; // pictures

class Answered extends Error {} // by the server, which could not do it now
class Refused extends Answered {} // or not at all

function asJson(body) { return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }; }
async function reasonOf(answer) { return (await answer.json().catch(() => ({ error: `status ${answer.status}` }))).error; }

async function post(path, body) {
  const answer = await fetch(path, { ...asJson(body), signal: AbortSignal.timeout(path === "preview" ? LOOKING : PATIENCE) });
  if (answer.ok) return answer.json();
  throw new (answer.status === 503 ? Answered : Refused)(await reasonOf(answer));
}

function newPicture(source, alt = "") {
  const img = Object.assign(new Image(), { alt, draggable: false });
  img.dataset.src = source;
  return img;
}

function smallPicture(source) { return tryAgain(newPicture(source)); }

function tryAgain(img) {
  const { src: source } = img.dataset;
  let attempts = 0;
  img.onerror = () => {
    attempts += 1;
    if (attempts < ATTEMPTS) setTimeout(() => { img.src = `${source}${source.includes("?") ? "&" : "?"}${attempts}`; }, RETRY);
    else img.alt = "cannot be shown";
  };
  return img;
}

// A few at a time, in the order that `listed` gives whenever one has come.
function loadInTurn(listed) {
  const waiting = new Set(listed().filter((img) => img && !img.getAttribute("src")));
  for (const img of waiting) {
    if (loading >= AT_ONCE) return;
    loading += 1;
    const ended = new Promise((resolve) => {
      img.addEventListener("load", resolve, { once: true });
      img.addEventListener("error", resolve, { once: true });
    });
    img.src = img.dataset.src;
    ended.then(() => { loading -= 1; loadInTurn(listed); });
  }
}

const wanted = []; // small pictures, once they come into view
const seen = new IntersectionObserver((entries) => {
  entries.filter(({ isIntersecting }) => isIntersecting).forEach(({ target }) => {
    seen.unobserve(target);
    wanted.push(target);
  });
  loadInTurn(() => wanted);
}, { rootMargin: "300px" });

function say(words) { by("status").textContent = words; }

function showTrouble(words, canGiveUp) {
  by("trouble-text").textContent = words;
  by("give-up").hidden = !canGiveUp;
  by("trouble").hidden = false;
}

function showFailure(error, words = "The server does not answer. Nothing is lost: start “hypervlad app” again with the same folder, and this page goes on.") {
  showTrouble(error instanceof Answered ? error.message : words, false);
}

function hideTrouble() { by("trouble").hidden = true; }
by("close-trouble").onclick = hideTrouble;
// Browsers slow down the timers of a hidden page, so that what it shows may be out of date.
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); }); // of each page

// What the server has rendered for pages of the app: forms and buttons whose attributes say what they
// send, the banner of the task that runs, dialogs. Each page has `takeState` (an answer) and `refresh`.
const BUSY_POLL = 300; // ms between questions how far the task is

let asking = 0; // the timer of the next question
let ended = ""; // state and kind of the task as shown last
let isCutOff = false; // from the server

// Return the answer, or null; while the server does not answer, ask again how everything is.
async function request(path, body = {}) {
  const answer = await post(path, body).catch((error) => { showFailure(error); return error; });
  const isAnswered = !(answer instanceof Error);
  if (isAnswered && isCutOff) hideTrouble(); // other troubles stay to be read
  isCutOff = !isAnswered && !(answer instanceof Refused);
  if (isCutOff) { clearTimeout(asking); asking = setTimeout(refresh, RETRY); }
  return isAnswered ? answer : null;
}

// Show what the server has rendered: a button that is pressed just now, a selection and what is typed stay.
function update(place, html) { renew(place, Object.assign(document.createElement("template"), { innerHTML: html }).content); }

function renew(place, like) {
  const before = [...place.childNodes];
  const now = [...like.childNodes].map((node) => {
    const at = before.findIndex((each) => each.isEqualNode(node) || (each.nodeName === node.nodeName && !/^(A|BUTTON|FORM)$/.test(node.nodeName)));
    if (at < 0) return node;
    const kept = before.splice(0, at + 1).at(-1);
    if (kept.isEqualNode(node)) return kept;
    if (kept.data !== node.data) kept.data = node.data; // of a text
    [...(kept.attributes ?? [])].forEach(({ name }) => node.hasAttribute(name) || kept.removeAttribute(name));
    [...(node.attributes ?? [])].forEach(({ name, value }) => kept.setAttribute(name, value));
    renew(kept, node);
    return kept;
  });
  [...place.childNodes].filter((each) => !now.includes(each)).forEach((each) => each.remove());
  now.forEach((node, i) => { if (place.childNodes[i] !== node) place.insertBefore(node, place.childNodes[i] ?? null); });
}

// Show the task; return its kind if it has just ended well.
function showBanner({ task, task_page: page, banner, sizes, is_reading: isReading, groups: named }) {
  groups = named;
  document.body.classList.toggle("elsewhere", page !== (document.querySelector("main").dataset.kind ?? "")); // then the page of the task says more
  showGroup();
  const step = by("task-step")?.textContent;
  update(by("task"), banner);
  by("task").hidden = !banner;
  by("task").dataset.state = task.state;
  if (banner && by("task-step").textContent !== step) say(by("task-step").textContent);
  clearTimeout(asking);
  if (task.state === "running" || isReading) asking = setTimeout(refresh, BUSY_POLL + by("list").children.length / 4); // an answer lists all images
  if (!by("sizes").querySelector("input:focus")) update(by("sizes"), sizes); // not while a person types there
  const hasEnded = ended === `running ${task.kind}` && task.state === "done";
  ended = `${task.state} ${task.kind}`;
  return hasEnded ? task.kind : "";
}

async function act(path, body) {
  const answer = await request(path, body);
  by("sheet")?.close();
  if (!answer) return;
  hideTrouble();
  if (path.startsWith("start/")) ended = `running ${answer.task.kind}`;
  if (path !== "take_back") takeState(answer); // then the list is another, too
  await refresh();
  if (answer.said) say(answer.said);
}

function valuesOf(form, pressed) { // what is not chosen has no value
  const chosen = [...form.elements].filter((each) => each.name && (each === pressed || !each.matches("button, [type=radio]:not(:checked)")));
  return Object.fromEntries(chosen.map((each) => [each.name, each.type === "checkbox" ? each.checked
    : each.matches("[type=number], [data-number]") ? Number(each.value) : each.value]));
}

// --- groups: of the open image or, with Shift, of all from it to the one that is clicked --------
let groups = {}; // by the names of images

function openItem() { return by("list").querySelector("li:has([aria-current], [name=image]:checked)"); }
function wordsWithGroup(words, name) { return groups[name] ? `${words} · ${groups[name]}` : words; }

function showGroup() {
  const chosen = [...by("list").querySelectorAll(".chosen")];
  const isOther = !chosen.includes(openItem()); // another image was opened
  if (isOther) chosen.forEach((item) => item.classList.remove("chosen"));
  if (!by("grouping") || !openItem()) return;
  const names = (isOther ? [openItem()] : chosen).map((item) => item.querySelector(".file").textContent);
  const [own, ...others] = new Set(names.map((name) => groups[name] ?? ""));
  by("group-of").textContent = names.length > 1 ? `${count(names.length)} images` : "this image";
  by("grouped").value = JSON.stringify(names);
  if (document.activeElement !== by("group")) by("group").value = others.length ? "" : own;
  by("groups").replaceChildren(...[...new Set(Object.values(groups))].sort().map((name) => new Option(name)));
}

by("list").addEventListener("click", (event) => {
  const [items, item] = [[...by("list").children], event.target.closest("li")];
  if (!item || !by("grouping") || event.target.closest(".mark")) return;
  const [from, to] = [openItem(), item].map((each) => items.indexOf(each)).sort((a, b) => a - b);
  items.forEach((each, place) => each.classList.toggle("chosen", event.shiftKey && place >= from && place <= to));
  if (event.shiftKey) { event.preventDefault(); event.stopPropagation(); }
  showGroup();
}, true);

async function openSheet(name) { showSheet(await request(`sheet/${name}`)); }

function showSheet(answer) {
  if (!answer || by("dialog").open) return;
  by("sheet").innerHTML = answer.html;
  if (!by("sheet").open) by("sheet").showModal();
}

document.addEventListener("submit", (event) => {
  const { post: path } = event.target.dataset;
  if (!path) return; // those of dialogs close them
  event.preventDefault();
  act(path, valuesOf(event.target, event.submitter));
});
document.addEventListener("input", ({ target }) => { // a field, and the slider beside it
  const [field, slider] = target.closest("label")?.querySelectorAll("input") ?? [];
  if (slider) (target === slider ? field : slider).value = target.value;
});
document.addEventListener("click", ({ target }) => {
  const { post: path, body } = target.closest("button[data-post]")?.dataset ?? {};
  if (path) act(path, JSON.parse(body ?? "{}"));
});

// What the server has rendered for pages of the app: forms and buttons whose attributes say what they
// send, the banner of the task that runs, dialogs. Each page has `takeState` (an answer) and `refresh`.
const BUSY_POLL = 300; // ms between questions how far the task is

let asking = 0; // the timer of the next question
let banner = ""; // as the server has rendered it last
let offeredSizes = ""; // the same of pixel sizes
let ended = ""; // state and kind of the task as shown last

async function request(path, body = {}) {
  try {
    return await post(path, body);
  } catch (error) {
    showFailure(error);
    return null;
  }
}

function askSoon() {
  clearTimeout(asking);
  asking = setTimeout(refresh, BUSY_POLL);
}

// Show the task; return its kind if it has just ended well. Progress does not replace the banner,
// of which a button may be pressed just now.
function showBanner({ task, banner: now, sizes, is_reading: isReading }) {
  const { kind, done, total, about } = task;
  if (now !== banner) {
    banner = now;
    by("task").innerHTML = now;
    by("task").hidden = !now;
    by("task").dataset.state = task.state;
    if (now) say(by("task-step").textContent);
  }
  const bar = by("task-bar");
  if (bar && total) [bar.max, bar.value] = [total, done];
  else if (bar) bar.removeAttribute("value");
  if (bar) by("task-left").textContent = about;
  if (task.state === "running" || isReading) askSoon();
  // Not while a person types there.
  if (sizes !== offeredSizes && !by("sizes").querySelector("input:focus")) by("sizes").innerHTML = offeredSizes = sizes;
  const hasEnded = ended === `running ${kind}` && task.state === "done";
  ended = `${task.state} ${kind}`;
  return hasEnded ? kind : "";
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

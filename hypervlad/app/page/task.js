// The page of a task of whole images: the server renders its list, its form and its results.
const kind = document.querySelector("main").dataset.kind;
let offered = null; // the page of results
let page = ""; // the page or picture that is shown instead of the image

function takeState(answer) {
  showBanner(answer);
  document.querySelectorAll("#choices button").forEach((each) => { each.disabled = answer.task.state === "running"; });
  if (answer.files === undefined) return;
  by("files").innerHTML = answer.files;
  if (answer.page !== offered) {
    page = offered = answer.page;
    by("result").disabled = !page;
    if (page && !isPicture(page)) by("frame").src = page;
    showResult(Boolean(page));
  }
}

async function refresh() {
  const answer = await request(`state/${kind}`);
  if (answer) takeState(answer);
}

function isPicture(name) { return /\.png(\?|$)/.test(name); }

function showResult(isOn) {
  const isPage = isOn && !isPicture(page);
  by("frame").hidden = !isPage;
  by("picture").hidden = isPage;
  if (!isPage) by("picture").src = isOn ? page : `files/image/${parseInt(document.querySelector("#list :checked")?.value, 10)}`;
  press(by("result"), isOn);
  press(by("original"), !isOn);
}

function open() {
  const row = document.querySelector("#list :checked");
  if (!row) return;
  by("name").textContent = by("picture").alt = row.value.replace(/^\d+:/, "");
  showResult(false);
  row.closest("li").scrollIntoView({ block: "nearest" });
}

by("list").onchange = ({ target }) => {
  if (target.name === "image") open();
  else request("mark_file", { kind, image: target.dataset.image, word: target.type === "checkbox" ? target.value.repeat(target.checked) : target.value });
};
by("picture").onerror = () => { by("picture").alt = `${by("name").textContent} cannot be shown`; };
by("original").onclick = () => showResult(false);
by("result").onclick = () => showResult(true);
by("files").onclick = (event) => {
  const { target: link } = event;
  if (link.target !== "frame") return;
  if (isPicture(link.href)) event.preventDefault();
  page = isPicture(link.href) ? link.href : "other";
  by("result").disabled = false;
  showResult(true);
};
document.querySelectorAll("#list img").forEach((img) => { tryAgain(img); seen.observe(img); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
open();
refresh();

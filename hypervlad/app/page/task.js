// The page of a task of whole images, and that of pixel sizes: the server renders its list, its form and
// its results; images are looked at, and on the page of sizes lengths measured in them.
const { kind } = document.querySelector("main").dataset;
const picture = by("picture");
let offered = null; // the page of results
let page = ""; // the page or picture that is shown instead of the image
let abouts = {}; // what the server knows of each image, by its number
let ends = []; // of a length, where a person has clicked: pixels of the picture
let nth = 0; // the end that arrow keys move
let [isPreview, isStale, caption, pictured] = [false, false, "", ""]; // the result: of one image, choices have changed since, what it says, pictures
let [inFrame, isUnsaved, ticked] = ["", false, null]; // the page of results that the frame has, and its decisions; the box before

function takeState(answer) {
  showBanner(answer);
  document.querySelectorAll("form[data-post^=start] button").forEach((each) => { each.disabled = answer.task.state === "running"; });
  const before = JSON.stringify(aboutOf(current()));
  abouts = answer.abouts ?? abouts;
  for (const row of document.querySelectorAll("#list .row")) {
    const { words, error } = aboutOf(row);
    Object.assign(row.lastChild, { textContent: wordsWithGroup(words, row.title), title: error ?? "" });
  }
  if (JSON.stringify(aboutOf(current())) !== before) showAbout();
  if (answer.files === undefined) return;
  [isPreview, caption, pictured] = [answer.is_preview, answer.caption, answer.picture];
  if (isStale && isPreview && !isUnsaved && answer.task.state !== "running") by("choices").requestSubmit(by("preview"));
  if (answer.task.state !== "running") isStale = false;
  update(by("files"), answer.files);
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

function isPicture(name) { return /\.png(\?|$)|^files\/image/.test(name); }
function current() { return document.querySelector("#list .row:has(:checked)"); }
function aboutOf(row) { return abouts[row?.dataset.number] ?? { words: "" }; }

function showResult(isOn) {
  const isPage = isOn && !isPicture(page);
  by("frame").hidden = !isPage;
  picture.hidden = isPage;
  by("caption").textContent = isOn && !isPage ? caption : "";
  if (!isPage) showPicture(isOn ? page : `files/${kind === "sizes" ? "whole" : "image"}/${current()?.dataset.number}`);
  press(by("result"), isOn);
  press(by("original"), !isOn);
}

async function showPicture(source) {
  picture.alt = by("name").textContent;
  picture.src = source;
  const isThere = await picture.decode().then(() => true, () => false);
  if (picture.getAttribute("src") !== source) return;
  if (!isThere && source.startsWith(`${kind}/`)) { showResult(false); return; } // it was not measured
  picture.classList.toggle("away", !isThere);
  by("wait").textContent = isThere ? "" : `This image cannot be shown. ${aboutOf(current()).error ?? ""}`;
  fit();
}

function open() {
  if (!current()) return;
  by("name").textContent = current().title;
  [ends, nth] = [[], 0];
  if (pictured) page = pictured.replace("{}", current().title.split("/").map(encodeURIComponent).join("/"));
  showResult(Boolean(pictured)); // of all images: then that of this one
  showAbout();
  showGroup();
  current().closest("li").scrollIntoView({ block: "nearest" });
}

// --- the view of the picture, and what is drawn onto it ---------------------------------------

function extent() { return [picture.naturalWidth || 300, picture.naturalHeight || 100]; }

function draw() {
  place(picture);
  const onStage = ([x, y]) => [view.scale * x + view.x, view.scale * y + view.y];
  const cross = (at, end) => crossAt(at, end === nth && document.activeElement === stage ? 14 : 8);
  const corners = /^files[^?]*$/.test(picture.getAttribute("src")) && aboutOf(current()).bar;
  const [[left, top], [right, bottom]] = [0, 2].map((first) => onStage(extent().map((side, axis) => side * (corners || [])[first + axis])));
  if (/^files/.test(picture.getAttribute("src")) && by("preview")) by("preview").value = middleShares();
  const box = corners ? `M${left - 6} ${top - 6}H${right + 6}V${bottom + 6}H${left - 6}Z` : "";
  const shown = ends.map(onStage);
  by("marks").setAttribute("d", picture.hidden ? "" : shown.length ? `M${shown.join("L")}${shown.map(cross).join("")}` : box);
}

function showAbout() { // on the page of sizes, of the open image
  draw();
  if (kind !== "sizes") return;
  const { words, note, width, length, label } = aboutOf(current());
  const [[x, y], [endX, endY]] = ends.length === 2 ? ends : [[0, 0], [0, 0]];
  const share = Math.hypot(endX - x, endY - y) / extent()[0];
  by("share").value = share || "";
  by("about").textContent = words;
  by("note").textContent = note ?? "";
  by("ends").textContent = share ? `${(share * width).toFixed(1)} px between the two ends`
    : ends.length ? "Click on the other end." : `${length ? `Its scale bar is ${length.toFixed(1)} px long. ` : ""}To measure a bar, click on both ends, or press Tab and arrow keys; the wheel enlarges.`;
  [by("says").firstChild.data, by("length").placeholder] = share || length ? ["It says ", "500 nm"] : ["Pixel size ", "nm per pixel"];
  if (!ends.length && document.activeElement !== by("length")) by("length").value = label ?? "";
}

moveByPointer((pixel) => {
  if (kind !== "sizes") return;
  ends = [...(ends.length === 2 ? [] : ends), pixel];
  nth = ends.length - 1;
  showAbout();
});
// Arrow keys move an end of the length, by one pixel of the screen with Shift; Tab chooses the other one.
stage.onkeydown = (event) => {
  const { key, shiftKey } = event;
  if (["+", "=", "-"].includes(key)) zoom(key === "-" ? 1 / 1.4 : 1.4);
  else if (kind !== "sizes" || picture.classList.contains("away")) return;
  else if (key === "Tab" && ends.length === 2 && nth === Number(shiftKey)) nth = 1 - nth;
  else if (key === "Enter" && ends.length === 2) by("length").select();
  else if (/^Arrow/.test(key)) {
    const [left, top, right, bottom] = aboutOf(current()).bar ?? [0.25, 0.5, 0.75, 0.5];
    if (ends.length < 2) ends = [left, right].map((x) => [x, (top + bottom) / 2].map((share, axis) => share * extent()[axis]));
    ends[nth] = moved(ends[nth], key, shiftKey);
  } else return;
  event.preventDefault();
  showAbout();
};
stage.onfocus = stage.onblur = draw;
by("choices").onchange = () => { isStale = isPreview; setTimeout(refresh, 500); }; // after the click that ended typing
by("frame").onload = () => { [inFrame, isUnsaved] = [offered, false]; };
by("list").onchange = ({ target }) => {
  if (target.name === "image") open();
  else request(`mark_file/${kind}`, { image: target.dataset.image, word: target.type === "checkbox" ? target.value.repeat(target.checked) : target.value });
};
by("list").onclick = ({ target, shiftKey }) => { // of a box: with Shift, those from the box before it, too
  const boxes = [...document.querySelectorAll("#list [type=checkbox]")];
  const [from, to] = [ticked, target].map((each) => boxes.indexOf(each)).sort((a, b) => a - b);
  if (shiftKey && from >= 0) boxes.slice(from, to + 1).filter(({ checked }) => checked !== target.checked).forEach((each) => each.click());
  if (target.type === "checkbox") ticked = target;
};
by("original").onclick = () => showResult(false);
by("result").onclick = () => { page = offered; showResult(true); };
document.addEventListener("click", (event) => {
  const { target: link } = event;
  if (link.target !== by("frame").name) return;
  if (isPicture(link.href)) event.preventDefault();
  page = isPicture(link.href) ? link.href : "other";
  by("result").disabled = false;
  showResult(true);
});
window.onmessage = async ({ source, data: sent }) => { // what a person has saved on the page of results
  if (source !== by("frame").contentWindow) return;
  if (typeof sent === "boolean") { isUnsaved = sent; return; }
  const answer = await request(`keep/${kind}`, { text: String(sent), page: inFrame });
  source.postMessage(Boolean(answer), "*");
  if (!answer) return;
  Object.assign(by("choices").elements[answer.choice], { value: answer.path }).closest("details").open = true;
  say(answer.said);
  if (answer.damage) showTrouble(answer.damage, false);
};
document.querySelectorAll("#list img").forEach((img) => { tryAgain(img); seen.observe(img); });
open();
refresh();
